"""Finding the files of a data set on the disk: folders, images, and each image's label."""

from collections.abc import Callable, Sequence
from pathlib import Path

from segslim.data.source import Pair
from segslim.errors import UserError

Key = Callable[[Path], str]

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def require_folder(folder: Path, holds: str) -> Path:
    """The folder itself. Raises `UserError` when it does not exist; `holds` says what it should be."""
    if not folder.is_dir():
        raise UserError(f"the folder {folder} does not exist: it should hold {holds}; set dataset.root")
    return folder


def images_in(folder: Path) -> list[Path]:
    """Every image at any depth below the folder, sorted; names that begin with a dot are passed over."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def paired(images: Path, labels: Path, image_key: Key, label_key: Key, strict: bool = True) -> list[Pair]:
    """The images and labels of two folders whose keys are equal, in the order of the keys.

    A key is made of a path relative to its folder; a file with the key "" does not count. Raises `UserError` for a
    folder without images, two files of one key, and if `strict`, an image without a label and a label without an image.
    """
    found_images, found_labels = _by_key(images, image_key), _by_key(labels, label_key)
    if strict:
        _refuse_lonely("image", found_images, found_labels, "label", labels)
        _refuse_lonely("label", found_labels, found_images, "image", images)
    return [
        Pair(found_images.get(key, images / key), found_labels.get(key, labels / key), 0, images)
        for key in sorted(found_images.keys() | found_labels.keys())
    ]


def existing(pairs: Sequence[Pair], strict: bool = True) -> list[Pair]:
    """The pairs as they are. If `strict`, raises `UserError` for the first file that does not exist."""
    for pair in pairs if strict else ():
        for path in (pair.image, pair.label):
            if not path.is_file():
                raise missing_file(pair, path)
    return list(pairs)


def missing_file(pair: Pair, path: Path) -> UserError:
    """The error for a file that a list names and that is not there."""
    kind = "image" if path == pair.image else "label"
    return UserError(f"{pair.where} names the {kind} {path}, which does not exist: mend the line or dataset.root")


def lines_of(list_file: Path) -> list[str]:
    """The lines of a list in UTF-8. Raises `UserError` naming the first line that is in another encoding."""
    lines = []
    for number, line in enumerate(list_file.read_bytes().splitlines(), start=1):
        try:
            lines.append(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError:
            raise UserError(f"{list_file}:{number} is not in UTF-8: save the list in that encoding") from None
    return lines


def stem(path: Path) -> str:
    """The key of files that differ in their suffix alone: `street/0001.jpg` and `street/0001.png`."""
    return path.with_suffix("").as_posix()


def _by_key(folder: Path, key: Key) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in images_in(folder):
        name = key(path.relative_to(folder))
        if name in found:
            raise UserError(f"{found[name]} and {path} have one name: rename or remove one of them")
        if name:
            found[name] = path
    if not found:
        raise UserError(f"the folder {folder} holds none of the images that belong there: set dataset.root")
    return found


def _refuse_lonely(kind: str, mine: dict[str, Path], others: dict[str, Path], other: str, folder: Path) -> None:
    lonely = sorted(mine.keys() - others.keys())
    if lonely:
        more = f" (and {len(lonely) - 1} more)" if len(lonely) > 1 else ""
        raise UserError(
            f"the {kind} {mine[lonely[0]]}{more} has no {other} in {folder}: add it there or take the {kind} out"
        )
