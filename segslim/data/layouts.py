"""Data sets whose files are on the disk already: lists, folders, and the layouts of public data sets."""

import codecs
import hashlib
import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path

from segslim.data.images import list_images
from segslim.data.source import SPLITS, Pair, Progress, Source, digest_of_pairs
from segslim.errors import UserError
from segslim.files import is_file
from segslim.plugins import import_path

SEPARATORS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";"}  # as they can be typed


class FileSource(Source):
    """A data set of existing files: nothing is prepared, and its identity is the content of the listed files."""

    @abstractmethod
    def list_pairs(self, split: str, strict: bool) -> list[Pair]:
        """The pairs of a split in order, whether or not their files exist. Raises `UserError` for any other fault."""

    def identity(self, cache: Path | None = None, strict: bool = True) -> str:
        """Digest of the images' and labels' bytes, split by split and in order; names and folders do not count."""
        return digest_of_pairs({split: self.list_pairs(split, strict) for split in SPLITS}, cache, strict)

    def prepare(self, folder: Path, progress: Progress | None = None) -> None:
        """Does nothing: the files stay where they are."""

    def pairs(self, folder: Path, split: str, strict: bool = True) -> list[Pair]:
        """The pairs of a split. Raises `UserError` for a missing root, list, image or label and a malformed line."""
        pairs = self.list_pairs(split, strict)
        for pair in pairs if strict else ():
            for kind, path in pair.files.items():
                if not is_file(path):
                    raise pair.error(kind, "does not exist: correct the line or dataset.root")
        return pairs


@dataclass(frozen=True)
class FileList(FileSource):
    """PaddleSeg's format: two text files of one `image label` pair a line, under a root folder.

    A relative list file and relative paths in it are relative to the root; backslashes of Windows become slashes. The
    separator " " is a tab where the line has one, else white space, a comma or a semicolon: where paths have spaces
    too, the one place that leaves two files that exist.
    """

    root: str | Path
    train_list: str | Path
    val_list: str | Path
    separator: str = " "

    def list_pairs(self, split: str, strict: bool) -> list[Pair]:
        if not self.separator:
            raise UserError("dataset.source.separator='': give tab, comma or semicolon, or leave it out")
        root = _root(self.root, "the files that the lists name")
        list_file = root / {"train": self.train_list, "val": self.val_list}[split]
        if not is_file(list_file):
            raise UserError(
                f"the list {list_file} does not exist: set dataset.source.{split}_list to a file under {root}"
            )
        pairs = []
        for number, line in _lines(list_file, f"image{self.separator}label"):
            columns = self._columns(line, root)
            if len(columns) != 2 or not all(columns):
                raise UserError(
                    f"{list_file}:{number} has {len(columns)} columns, not 'image{self.separator}label', when split at "
                    f"{self.separator!r}: correct it, or give dataset.source.separator=tab, comma or semicolon"
                )
            image, label = (_file(root, column) for column in columns)
            pairs.append(Pair(image, label, number, list_file))
        return pairs

    def _columns(self, line: str, root: Path) -> list[str]:
        separator = SEPARATORS.get(self.separator, self.separator)
        if separator == " " and "\t" in line:
            separator = "\t"
        if separator != " ":
            return [part.strip() for part in line.split(separator)]
        words = line.split()
        if len(words) == 2 and not {",", ";"} & {*line}:
            return words
        cuts = [
            (line[: gap.start()].strip(), line[gap.end() :].strip()) for gap in re.finditer(r"[,;]|\s+", line.strip())
        ]
        found = [cut for cut in cuts if all(cut) and all(is_file(_file(root, name)) for name in cut)]
        return list(found[0]) if len(found) == 1 else words


@dataclass(frozen=True)
class Folder(FileSource):
    """Images in one folder under `root` and their labels in another, at any depth: a label has its image's path, but
    for the suffix, and for `image_end` and `label_end` before it.

    Where `images` and `labels` hold "{split}", each split has folders of its own, named by `splits`: images/train and
    images/val. Otherwise `val_share` of the pairs, at least one, validate. Which ones depends only on the seed and the
    paths, so that further images move few of the others. `label_offset` is added to the numbers in the label files.
    """

    root: str | Path
    images: str = "images"
    labels: str = "labels"
    val_share: float = 0.2
    seed: int = 0
    splits: Sequence[str] = SPLITS
    image_end: str = ""
    label_end: str = ""
    label_offset: int = 0

    def __post_init__(self) -> None:
        if len(self.splits) != len(SPLITS):
            raise UserError(f"dataset.source.splits={list(self.splits)}: give two folders, to train and to validate on")

    def list_pairs(self, split: str, strict: bool) -> list[Pair]:
        root = _root(self.root, f"the folders {self.images} and {self.labels}")
        own = self.splits[SPLITS.index(split)]
        images = _require_folder(root / self.images.replace("{split}", own), "the images")
        labels = _require_folder(root / self.labels.replace("{split}", own), "the labels, named as the images")
        pairs = _match(images, labels, strict, self.image_end, self.label_end)
        pairs = [replace(pair, label_offset=self.label_offset) for pair in pairs]
        return pairs if "{split}" in self.images else _part(pairs, split, images, self.val_share, self.seed)


@dataclass(frozen=True)
class Images(FileSource):
    """The images of a folder, at any depth, without labels: for a network that is trained already.

    The split is that of `Folder`; those that do not validate calibrate. Once the network has predicted their classes
    (the stage pseudo_label), its predictions stand for the labels.
    """

    root: str | Path
    val_share: float = 0.2
    seed: int = 0

    def list_pairs(self, split: str, strict: bool) -> list[Pair]:
        root = _root(self.root, "the images")
        pairs = [Pair(image, None, 0, root) for image in list_images(root)]
        if not pairs:
            raise UserError(f"the folder {root} holds no images: set dataset.root")
        return _part(pairs, split, root, self.val_share, self.seed)

    def pairs(self, folder: Path, split: str, strict: bool = True) -> list[Pair]:
        """The images of a split, with the predictions that are there for labels."""
        pairs = super().pairs(folder, split, strict)
        labels = [pseudo_label(folder, pair) for pair in pairs]
        return [replace(p, label=label) if label.is_file() else p for p, label in zip(pairs, labels, strict=True)]


def pseudo_label(folder: Path, pair: Pair) -> Path:
    """Where a data set's folder holds what a network predicts of an image; by all of the image's path in its root."""
    return folder / "predictions" / f"{pair.image.relative_to(pair.list_file).as_posix()}.png"


@dataclass(frozen=True)
class Voc(FileSource):
    """PASCAL VOC 2012 (Everingham et al., 2015): everyday photographs, 20 kinds of objects and the background.

    JPEGImages, SegmentationClass and ImageSets/Segmentation/{train,val}.txt in `root` or in its folder VOC2012.
    `augmented` adds to the training images those of aug.txt, with labels in SegmentationClassAug (Hariharan et al.,
    2011), as PaddleSeg's tools/data/voc_augment.py writes them.
    """

    root: str | Path
    augmented: bool = False

    def list_pairs(self, split: str, strict: bool) -> list[Pair]:
        root = _root(self.root, "PASCAL VOC's folder VOC2012")
        year = next((found for found in (root / "VOC2012", root / "VOCdevkit" / "VOC2012") if found.is_dir()), root)
        lists = _require_folder(year / "ImageSets" / "Segmentation", "PASCAL VOC's lists train.txt and val.txt")
        parts = [(lists / f"{split}.txt", "SegmentationClass")]
        if split == "train" and self.augmented:
            parts.append((lists / "aug.txt", "SegmentationClassAug"))
        pairs = []
        for list_file, labels in parts:
            if not is_file(list_file):
                raise UserError(f"the list {list_file} does not exist: set dataset.root to a folder with VOC2012")
            for number, line in _lines(list_file, "the name of one image"):
                image, label = f"{line.strip()}.jpg", f"{line.strip()}.png"
                pairs.append(Pair(year / "JPEGImages" / image, year / labels / label, number, list_file))
        return pairs


def _part(pairs: list[Pair], split: str, images: Path, val_share: float, seed: int) -> list[Pair]:
    """The pairs of a split: which ones depends only on the seed and the paths below `images`."""
    if not 0 < val_share < 1:
        raise UserError(f"dataset.source.val_share={val_share}: should be between 0 and 1, such as 0.2")
    if len(pairs) < 2:
        raise UserError(f"the folder {images} holds one image: give at least two, one of them to validate on")

    def position(pair: Pair) -> str:
        """Random, but the image's own: sorting by it draws the same images however many there are."""
        return hashlib.sha256(f"{seed}:{_key(pair.image.relative_to(images))}".encode()).hexdigest()

    count = min(max(round(len(pairs) * val_share), 1), len(pairs) - 1)
    validation = set(sorted(pairs, key=position)[:count])
    return [pair for pair in pairs if (pair in validation) == (split == "val")]


@dataclass(frozen=True)
class PaddleSegDataset(FileSource):
    """The files that a data set class of PaddleSeg lists, such as `paddleseg.datasets.CocoStuff`, in its layout."""

    root: str | Path
    dataset: str
    train_list: str = ""  # of the options of a FileList; the class knows its own
    val_list: str = ""
    separator: str = ""

    def list_pairs(self, split: str, strict: bool) -> list[Pair]:
        from segslim.paddle_compat import import_paddleseg

        root = _root(self.root, f"the files of {self.dataset}")
        import_paddleseg()
        made = import_path(self.dataset, "dataset.source.dataset")
        needed = {"transforms", "common_transforms", "transforms1", "transforms2"} & {*signature(made).parameters}
        try:
            listed = made(dataset_root=str(root), mode=split, **{name: [] for name in needed}).file_list
        except Exception as error:  # each class raises its own for files that are not there
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{self.dataset} cannot list the files of {root}: {reason}; set dataset.root") from None
        if not listed:
            raise UserError(f"{self.dataset} finds no {split} images in {root}: set dataset.root to its layout")
        offset = -1 if self.dataset.endswith(".ADE20K") else 0
        return [Pair(Path(image), Path(label), 0, root, offset) for image, label in listed]


def _root(root: str | Path, content: str) -> Path:
    return _require_folder(Path(root).expanduser(), content)


def _file(root: Path, name: str) -> Path:
    """A file of a list, which may have been written on Windows."""
    return root / (name if "\\" not in name or (root / name).exists() else name.replace("\\", "/"))


def _require_folder(folder: Path, content: str) -> Path:
    if not folder.is_dir():
        raise UserError(f"the folder {folder} does not exist: it should hold {content}; set dataset.root")
    return folder


def _lines(list_file: Path, content: str) -> list[tuple[int, str]]:
    """The lines of a list that are not blank, with their numbers; `content` is what a line should hold."""
    content_bytes = list_file.read_bytes()
    if content_bytes[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):  # what Windows calls Unicode
        content_bytes = content_bytes.decode("utf-16", errors="replace").encode()
    lines = []
    for number, encoded in enumerate(content_bytes.splitlines(), start=1):
        try:
            line = encoded.decode("utf-8-sig" if number == 1 else "utf-8")  # a byte order mark may come first
        except UnicodeDecodeError:
            raise UserError(f"{list_file}:{number} is not in UTF-8: save the list in that encoding") from None
        if line.strip():
            lines.append((number, line))
    if not lines:
        raise UserError(f"the list {list_file} is empty: it needs {content!r} on each line")
    return lines


def _key(path: Path, end: str = "") -> str:
    """A path without its suffix and `end`, or "" if it does not end so: `street/0001` for street/0001_label.png."""
    name = path.with_suffix("").as_posix()
    return name.removesuffix(end) if name.endswith(end) else ""


def _is_utf8(path: Path) -> bool:
    try:
        return bool(str(path).encode())
    except UnicodeEncodeError:
        return False


def _match(images: Path, labels: Path, strict: bool, image_end: str = "", label_end: str = "") -> list[Pair]:
    """The images and labels of two folders with equal paths but for suffix and end, sorted; others are left out.

    Raises `UserError` for a folder without images, two files of one name, and, if `strict`, half a pair.
    """
    files: dict[str, dict[str, Path]] = {"image": {}, "label": {}}
    for kind, folder, end in (("image", images, image_end), ("label", labels, label_end)):
        for path in list_images(folder):
            if not _is_utf8(path):
                raise UserError(f"{path}: its name is not in UTF-8: rename it, as by convmv -r -f gbk -t utf8 {folder}")
            key = _key(path.relative_to(folder), end)
            if key in files[kind]:
                raise UserError(f"{files[kind][key]} and {path} have one name: rename or remove one of them")
            if key:
                files[kind][key] = path
        if not files[kind]:
            named = f" named *{end}" if end else ""
            raise UserError(f"the folder {folder} holds no {kind}s{named}: set dataset.root")
    for kind, other, folder in (("image", "label", labels), ("label", "image", images)) if strict else ():
        single = sorted(files[kind].keys() - files[other].keys())
        if single:
            more = f" (and {len(single) - 1} more)" if len(single) > 1 else ""
            path = files[kind][single[0]]
            raise UserError(f"the {kind} {path}{more} has no {other} in {folder}: add it there or remove the {kind}")
    return [
        Pair(files["image"].get(key, images / key), files["label"].get(key, labels / key), 0, images)
        for key in sorted(files["image"].keys() | files["label"].keys())
    ]
