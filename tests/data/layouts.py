"""Tiny data sets in PaddleSeg's format and in the layouts of public data sets."""

from pathlib import Path

import numpy as np
from PIL import Image

from segslim.data import FileList

SIZE = (20, 16)  # width, height


def write_image(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
    Image.fromarray(noise).save(path)


def write_label(path: Path, values: list[int], seed: int = 0, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = np.random.default_rng(seed).choice(np.array(values, np.uint8), (SIZE[1], SIZE[0]))
    drawn[0, : len(values)] = values
    label = Image.fromarray(drawn)
    if palette:
        label.putpalette([level for value in range(256) for level in (value, 255 - value, 128)])
    label.save(path)


def file_list(root: Path, count: int = 4, size: tuple[int, int] = SIZE, separator: str = " ") -> FileList:
    """Noise and labels of the classes 0 to 2 and the ignored 255; names have a space unless the separator is one."""
    rng = np.random.default_rng(0)
    width, height = size
    prefix = "" if separator == " " else "my "
    lines = []
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        image, label = f"images/{prefix}{index}.png", f"labels/{prefix}{index}.png"
        Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(root / image)
        Image.fromarray(rng.choice(np.array([0, 1, 2, 255], np.uint8), (height, width))).save(root / label)
        lines.append(f"{image}{separator}{label}\n")
    (root / "train.txt").write_text("".join(lines[:-1]))
    (root / "val.txt").write_text(lines[-1])
    return FileList(root, "train.txt", "val.txt", separator)


def cityscapes(root: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        for index in range(count):
            frame = f"{split}/aachen/aachen_{index:06}_000019"
            write_image(root / "leftImg8bit" / f"{frame}_leftImg8bit.png", index)
            write_label(root / "gtFine" / f"{frame}_gtFine_labelTrainIds.png", [0, 7, 18, 255], index)
            write_label(root / "gtFine" / f"{frame}_gtFine_labelIds.png", [0, 33], index)
            write_image(root / "gtFine" / f"{frame}_gtFine_color.png", index)


def voc(root: Path, augmented: bool = False) -> None:
    lists = root / "VOC2012" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    splits = {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033"]}
    if augmented:
        splits["aug"] = ["2008_000002"]
    for split, names in splits.items():
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            labels = "SegmentationClassAug" if split == "aug" else "SegmentationClass"
            write_image(root / "VOC2012" / "JPEGImages" / f"{name}.jpg")
            write_label(root / "VOC2012" / labels / f"{name}.png", [0, 5, 20, 255], palette=True)


def ade20k(root: Path) -> None:
    for split, count in (("training", 3), ("validation", 2)):
        for index in range(count):
            write_image(root / "images" / split / f"ADE_{index:08}.jpg", index)
            write_label(root / "annotations" / split / f"ADE_{index:08}.png", [0, 1, 150], index)


def folder(root: Path, count: int = 10) -> None:
    for index in range(count):
        write_image(root / "images" / f"day{index % 2}" / f"{index}.jpg", index)
        write_label(root / "labels" / f"day{index % 2}" / f"{index}.png", [0, 1, 2], index)


def optic_disc(root: Path) -> None:
    for split, count in (("train", 2), ("val", 1)):
        names = [f"{split}{index}" for index in range(count)]
        for name in names:
            write_image(root / "JPEGImages" / f"{name}.jpg")
            write_label(root / "Annotations" / f"{name}.png", [0, 1], palette=True)
        lines = [f"JPEGImages/{name}.jpg Annotations/{name}.png\n" for name in names]
        (root / f"{split}_list.txt").write_text("".join(lines))
