"""A small data set in PaddleSeg's format, written for a test."""

from pathlib import Path

import cv2
import numpy as np

from segslim.data import FileList


def write_file_list(root: Path, count: int = 4, size: tuple[int, int] = (20, 16), separator: str = " ") -> FileList:
    """Noise images and labels of the classes 0 to 2, and the ignored 255, under names with a space where that works."""
    rng = np.random.default_rng(0)
    width, height = size
    prefix = "" if separator == " " else "my "
    lines = []
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        image, label = f"images/{prefix}{index}.png", f"labels/{prefix}{index}.png"
        cv2.imwrite(str(root / image), rng.integers(0, 255, (height, width, 3), np.uint8))
        cv2.imwrite(str(root / label), rng.choice(np.array([0, 1, 2, 255], np.uint8), (height, width)))
        lines.append(f"{image}{separator}{label}\n")
    (root / "train.txt").write_text("".join(lines[:-1]))
    (root / "val.txt").write_text(lines[-1])
    return FileList(root, "train.txt", "val.txt", separator)
