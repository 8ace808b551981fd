"""What is written of predictions: masks, pictures, outlines and areas, of images and of frames."""

import csv
import json
import math
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from segslim.colours import Colour, background_of, blend
from segslim.data.images import list_images
from segslim.errors import UserError

#: What can be written, and where it goes below the output folder.
KINDS: Mapping[str, str] = {
    "masks": "masks/NAME.png, the classes' colours as its palette; .tif where the image is a georeferenced one",
    "overlays": "overlays/NAME.jpg, the classes over the image, with a legend",
    "polygons": "polygons/NAME.geojson, the outline of each region; in degrees where the image is georeferenced",
    "coco": "coco.json, each region of each image with its box and run lengths",
    "areas": "areas.csv, the pixels of each class in each image, and square metres where the image tells",
}
JPEG_QUALITY = 92
LEAST_WIDTH = 96  # pixels of an overlay, for a legend


@dataclass(frozen=True)
class Job:
    """An image, and the name of what is made of it, without suffix, relative to its kind's folder."""

    image: Path
    name: str


def jobs_of(source: Path, output: Path) -> list[Job]:
    """One job for an image file, or one for each image at any depth in a folder; files in `output` are left out.

    Results have their image's name; of two images that differ only in the suffix, `a.jpg.png` and `a.png.png`.
    Raises UserError for a path that does not exist and a folder without images.
    """
    if source.is_dir():
        images = [path for path in list_images(source) if not path.resolve().is_relative_to(output.resolve())]
        names = [path.relative_to(source) for path in images]
        if not images:
            raise UserError(f"the folder {source} holds no image (.jpg, .png, .bmp, .tif, .webp)")
    elif source.is_file():
        images, names = [source], [Path(source.name)]
    else:
        raise UserError(f"{source} does not exist: give an image, a video, or a folder of images")
    alike = Counter(name.with_suffix("") for name in names)
    stems = [str(name if alike[name.with_suffix("")] > 1 else name.with_suffix("")) for name in names]
    return [Job(image, name) for image, name in zip(images, stems, strict=True)]


@dataclass(frozen=True)
class Place:
    """Where on earth an image is: rasterio's affine `transform` from its pixels, and its `crs`."""

    transform: Any
    crs: Any

    @property
    def square_metres(self) -> float | None:
        """Of a pixel; None where coordinates are degrees."""
        if not self.crs.is_projected:
            return None
        return float(abs(self.transform.determinant) * self.crs.linear_units_factor[1] ** 2)


@dataclass
class Results:
    """Writes what `kinds` (of KINDS) name of each image below `output`, from any thread; `close` writes what is of all.

    colours, classes: of the class ids; without names a class is its number.
    """

    output: Path
    kinds: Collection[str]
    colours: Sequence[Colour]
    classes: Sequence[str] | None = None
    _areas: list[list[Any]] = field(default_factory=list)
    _coco: list[tuple[str, tuple[int, int], list[dict[str, Any]]]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if "polygons" in self.kinds and find_spec("rasterio") is None:
            raise UserError("--write polygons needs rasterio: `uv sync --group geo`, or `pip install rasterio`")

    def name_of(self, at: int) -> str:
        return self.classes[at] if self.classes and at < len(self.classes) else str(at)

    def write(self, name: str, image: NDArray[np.uint8], ids: NDArray[np.uint8], place: Place | None = None) -> None:
        """Writes all of one image: `image` H,W,3 RGB, `ids` H,W. Raises UserError for a folder that takes no file."""
        if "masks" in self.kinds:
            self.write_mask(name, ids, place)
        if "overlays" in self.kinds:
            self.write_overlay(name, image, ids)
        if "polygons" in self.kinds:
            self.write_polygons(name, self.outlines(ids, place), place)
        if "coco" in self.kinds:
            found = list(_regions(ids, background_of(self.classes)))
            with self._lock:
                self._coco.append((name, (ids.shape[1], ids.shape[0]), found))
        self.count(name, np.bincount(ids.ravel(), minlength=len(self.classes or ())), place)

    def write_mask(self, name: str, ids: NDArray[np.uint8], place: Place | None) -> None:
        if place is None:
            self._save(self.file("masks", name, ".png"), self.mask(ids))
            return
        with self.raster(name, ids.shape, place) as file:
            file.write(ids, 1)

    def mask(self, ids: NDArray[np.uint8]) -> Image.Image:
        """Class ids H,W with the classes' colours as their palette."""
        mask = Image.fromarray(ids)
        mask.putpalette([level for colour in self.colours for level in colour])
        return mask

    def raster(self, name: str, shape: tuple[int, int], place: Place | None) -> Any:
        """A TIFF mask of (height, width), open to be written band by band, with the classes' colours."""
        import rasterio

        options = {"driver": "GTiff", "count": 1, "dtype": "uint8", "compress": "deflate", "tiled": True}
        if place is not None:
            options |= {"transform": place.transform, "crs": place.crs}
        file = self.file("masks", name, ".tif")
        with _writable(file):
            opened = rasterio.open(file, "w", height=shape[0], width=shape[1], BIGTIFF="IF_SAFER", **options)
        opened.write_colormap(1, {at: (*colour, 255) for at, colour in enumerate(self.colours)})
        return opened

    def write_overlay(self, name: str, image: NDArray[np.uint8], ids: NDArray[np.uint8]) -> None:
        self._save(self.file("overlays", name, ".jpg"), self.overlay(image, ids), quality=JPEG_QUALITY)

    def overlay(self, image: NDArray[np.uint8], ids: NDArray[np.uint8], whole_legend: bool = False) -> Image.Image:
        """The image in its classes' colours, the background as it is; below it a legend, where classes have names, of
        those that are there, or, `whole_legend`, of all, so that all frames of a video are alike.
        """
        background = background_of(self.classes)
        picture = Image.fromarray(blend(image, ids, self.colours, background=background))
        there = range(len(self.classes or ())) if whole_legend else np.unique(ids).tolist()
        shown = [at for at in there if at != background and at < len(self.classes or ())]
        named = [(self.name_of(at), self.colours[at]) for at in shown]
        return with_legend(picture, named) if named and picture.width >= LEAST_WIDTH else picture

    def film(self, name: str, fps: float) -> "Film":
        """The overlays of a video."""
        return Film(self, self.file("overlays", name, ".mp4"), fps)

    def write_polygons(self, name: str, outlines: Iterator[tuple[dict[str, Any], int]], place: Place | None) -> None:
        """GeoJSON (RFC 7946): longitude and latitude where there is a place, else pixels, y downwards."""
        from rasterio.warp import transform_geom

        file = self.file("polygons", name, ".geojson")
        with _writable(file), file.open("w", encoding="utf-8") as stream:
            stream.write('{"type": "FeatureCollection", "features": [')
            for number, (geometry, at) in enumerate(outlines):
                where = geometry if place is None else transform_geom(place.crs, "EPSG:4326", geometry)
                feature = {
                    "type": "Feature",
                    "properties": {"class": at, "name": self.name_of(at)},
                    "geometry": where,
                }
                stream.write(("," if number else "") + "\n" + json.dumps(feature, ensure_ascii=False))
            stream.write("\n]}\n")

    def outlines(self, ids: Any, place: Place | None) -> Iterator[tuple[dict[str, Any], int]]:
        """Each region of one class but the background, along the edges of its pixels, with holes; `ids` H,W, or a
        band of rasterio's, which is not read as a whole.
        """
        from rasterio.features import shapes

        options = {} if place is None else {"transform": place.transform}
        for geometry, at in shapes(ids, connectivity=4, **options):
            if at != background_of(self.classes):
                yield geometry, int(at)

    def count(self, name: str, pixels: NDArray[np.int64], place: Place | None) -> None:
        """Takes down how many pixels each class has in an image."""
        if "areas" not in self.kinds:
            return
        metres = place.square_metres if place is not None else None
        rows = [
            [name, at, self.name_of(at), count, count / pixels.sum(), "" if metres is None else count * metres]
            for at, count in enumerate(pixels.tolist())
            if count or at < len(self.classes or ())
        ]
        with self._lock:
            self._areas += rows

    def close(self) -> None:
        """Writes what is of all images, in the order of their names."""
        if "areas" in self.kinds:
            rows = sorted(self._areas, key=lambda row: (row[0], row[1]))
            file = self.file("areas", "areas", ".csv")
            with _writable(file), file.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.writer(stream)
                writer.writerow(["image", "class", "name", "pixels", "share", "square_metres"])
                writer.writerows(rows)
        if "coco" in self.kinds:
            file = self.file("coco", "coco", ".json")
            with _writable(file):
                file.write_text(json.dumps(self._as_coco(), ensure_ascii=False), encoding="utf-8")

    def _as_coco(self) -> dict[str, Any]:
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, (name, (width, height), found) in enumerate(sorted(self._coco, key=lambda one: one[0]), start=1):
            images.append({"id": number, "file_name": name, "width": width, "height": height})
            annotations += [{"id": len(annotations) + 1 + k, "image_id": number, **one} for k, one in enumerate(found)]
        present = {one["category_id"] for one in annotations} | set(range(len(self.classes or ())))
        categories = [{"id": at, "name": self.name_of(at)} for at in sorted(present - {background_of(self.classes)})]
        return {"images": images, "annotations": annotations, "categories": categories}

    def written(self) -> str:
        """In words, where everything is."""
        places = {"areas": "areas.csv", "coco": "coco.json"}
        return ", ".join(f"{kind} in {self.output / places.get(kind, kind)}" for kind in KINDS if kind in self.kinds)

    def file(self, kind: str, name: str, suffix: str) -> Path:
        folder = self.output if kind in ("areas", "coco") else self.output / kind
        file = folder / f"{name}{suffix}"
        with _writable(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        return file

    def _save(self, file: Path, picture: Image.Image, **options: Any) -> None:
        with _writable(file):
            picture.save(file, **options)


@dataclass
class Film:
    """A video of overlays, made frame by frame. Released, it can be played."""

    results: Results
    file: Path
    fps: float
    _writer: Any = None

    def add(self, image: NDArray[np.uint8], ids: NDArray[np.uint8]) -> None:
        """Raises UserError where OpenCV cannot write it."""
        frame = np.asarray(self.results.overlay(image, ids, whole_legend=True))
        below, beside = (-side % 2 for side in frame.shape[:2])  # codecs want even sides
        frame = cv2.copyMakeBorder(frame, 0, below, 0, beside, cv2.BORDER_REPLICATE)
        if self._writer is None:
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self.file), codec, self.fps, (frame.shape[1], frame.shape[0]))
            if not self._writer.isOpened():
                raise UserError(f"cannot write {self.file}: give another --output, or leave overlays out of --write")
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def release(self) -> None:
        if self._writer is not None:
            self._writer.release()


@contextmanager
def _writable(file: Path) -> Iterator[None]:
    """Within it, an error of the file system becomes a UserError that names the folder and the remedy."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write to {file.parent} ({reason}): give another --output") from None


def _regions(ids: NDArray[np.uint8], background: int | None) -> Iterator[dict[str, Any]]:
    """Each connected region of one class as COCO has it: its class, pixels, box, and run lengths down the columns."""
    for at in np.unique(ids).tolist():
        if at == background:
            continue
        count, labels, figures, _ = cv2.connectedComponentsWithStats((ids == at).astype(np.uint8), connectivity=4)
        for label in range(1, count):
            left, top, width, height, area = (int(figure) for figure in figures[label])
            columns, rows = np.nonzero(label == labels[top : top + height, left : left + width].T)
            yield {
                "category_id": at,
                "area": area,
                "bbox": [left, top, width, height],
                "iscrowd": 0,
                "segmentation": {
                    "size": list(ids.shape),
                    "counts": _run_lengths((columns + left) * ids.shape[0] + rows + top, ids.size),
                },
            }


def _run_lengths(places: NDArray[np.int64], size: int) -> list[int]:
    """Of `size` pixels, counted down the columns, how many are not in a region, are, are not, ...: pycocotools'
    uncompressed form. `places` are those that are, in order.
    """
    breaks = np.flatnonzero(np.diff(places) != 1) + 1
    starts, ends = places[np.r_[0, breaks]], places[np.r_[breaks - 1, -1]] + 1
    borders = np.column_stack([starts, ends]).ravel()
    runs: list[int] = np.diff(np.r_[0, borders, size]).tolist()
    return runs


def with_legend(picture: Image.Image, named: Sequence[tuple[str, Colour]]) -> Image.Image:
    """The picture with a strip below it: a square of each colour and its name."""
    size = max(11, round(min(picture.size) / 28))
    font, gap = ImageFont.load_default(size), size // 2
    # the font that comes with Pillow has Latin letters alone
    texts = [name if name.isascii() else name.encode("ascii", "backslashreplace").decode() for name, _ in named]
    widths = [3 * gap + size + math.ceil(font.getlength(text)) for text in texts]
    places, x, row = [], gap, 0
    for width in widths:
        if x > gap and x + width > picture.width:
            x, row = gap, row + 1
        places.append((x, row))
        x += width
    line = size + gap
    strip = (row + 1) * line + gap
    drawn = Image.new("RGB", (picture.width, picture.height + strip), "white")
    drawn.paste(picture)
    pen = ImageDraw.Draw(drawn)
    for (x, row), text, (_, colour) in zip(places, texts, named, strict=True):
        y = picture.height + gap + row * line
        pen.rectangle((x, y, x + size - 1, y + size - 1), fill=colour)
        pen.text((x + size + gap, y + size / 2), text, fill="black", font=font, anchor="lm")
    return drawn
