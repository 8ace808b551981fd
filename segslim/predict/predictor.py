"""Images to class ids: transforms, engine, and the way back to each image's own size; for one image, and for many."""

import math
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segslim.colours import Colour, background_of, blend
from segslim.data.images import Reading, as_rgb, list_images, read_image
from segslim.deployment.deployment import Deployment, one_line
from segslim.deployment.engines import Session, open_session
from segslim.errors import UserError
from segslim.evaluation.metrics import resize_nearest, restore
from segslim.evaluation.windows import Augmented, restore_logits
from segslim.hardware import cores
from segslim.onnx_graph import write_logits_model
from segslim.predict.preprocessing import Step, Transform, apply, transform_from_node
from segslim.screen import Screen
from segslim.streams import printable_line

__all__ = ["Job", "jobs_of", "read_image", "write_results"]

JPEG_QUALITY = 92
LEAST_WIDTH = 96  # pixels of an overlay, for a legend


@dataclass(frozen=True)
class Job:
    """An image and the files that are made of it."""

    image: Path
    mask: Path
    overlay: Path


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
        raise UserError(f"{source} does not exist: give an image or a folder of images")
    alike = Counter(name.with_suffix("") for name in names)
    stems = [str(name if alike[name.with_suffix("")] > 1 else name.with_suffix("")) for name in names]
    return [
        Job(image, output / "masks" / f"{name}.png", output / "overlays" / f"{name}.jpg")
        for image, name in zip(images, stems, strict=True)
    ]


def write_results(
    job: Job,
    image: NDArray[np.uint8],
    ids: NDArray[np.uint8],
    colours: Sequence[Colour],
    classes: Sequence[str] | None = None,
) -> None:
    """Writes the mask, a PNG of class ids with the `colours` as its palette, and the overlay, a JPEG that leaves the
    background as it is, and has a legend below where `classes` has names.

    Raises UserError for a folder that cannot be written.
    """
    background = background_of(classes)
    overlay = Image.fromarray(blend(image, ids, colours, background=background))
    shown = [at for at in np.unique(ids).tolist() if at != background and at < len(classes or ())]
    named = [(classes[at], colours[at]) for at in shown] if classes else []
    if named and overlay.width >= LEAST_WIDTH:
        overlay = with_legend(overlay, named)
    mask = Image.fromarray(ids)
    mask.putpalette([level for colour in colours for level in colour])
    try:
        for file in (job.mask, job.overlay):
            file.parent.mkdir(parents=True, exist_ok=True)
        mask.save(job.mask)
        overlay.save(job.overlay, quality=JPEG_QUALITY)
    except OSError as error:
        raise UserError(f"cannot write to {job.mask.parent} ({error.strerror}): give another --output") from None


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


WORKERS = 2  # threads that read and write while the engine runs
MOST_SHRUNK = 4  # times, without a word: a thing of 8 pixels has 2 then
AHEAD = 4  # images in memory on either side of it

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Prepared:
    """An image as the network takes it (1,C,H,W float32), and the changes of its size."""

    input: NDArray[np.float32]
    steps: list[Step]

    @property
    def shrinks(self) -> float:
        """How many times longer a side of the image was than it is for the network."""
        height, width = self.input.shape[2:]
        return max((max(was[0] / height, was[1] / width) for *was, padded in self.steps if not padded), default=1.0)


@dataclass(frozen=True)
class Predictor:
    """A deployment, opened by an engine. `prepare` may run in other threads than `run`."""

    deployment: Deployment
    transforms: Sequence[Transform]
    session: Session  # where images are augmented, one that gives logits
    augmented: Augmented | None = None

    def read(self, image: Path) -> NDArray[Any]:
        """H,W,C in 0..255 of an image file, as the network takes it. Raises UserError for a bad one."""
        return read_image(image, "", Reading(self.deployment.channels, self.deployment.max_value))

    def predict(self, image: NDArray[Any]) -> NDArray[np.uint8]:
        """Class ids H,W of an image H,W,C in 0..255. Raises UserError for an image that the deployment cannot take."""
        return self.run(self.prepare(image))

    def prepare(self, image: NDArray[Any]) -> Prepared:
        """Applies the transforms. Raises UserError where the outcome does not fit the network."""
        prepared = Prepared(*apply(self.transforms, image))
        height, width = prepared.input.shape[2:]
        wanted = self.deployment.input_size
        if self.augmented is None and wanted is not None and (width, height) != wanted:
            raise UserError(
                f"the transforms make it {width} x {height}, but the network takes {wanted[0]} x {wanted[1]}: "
                "resize it, or export with export.size=dynamic"
            )
        return prepared

    def run(self, prepared: Prepared) -> NDArray[np.uint8]:
        """Runs the network. Raises UserError where the engine fails or gives anything but classes."""

        def run(image: NDArray[np.float32]) -> NDArray[Any]:
            return self.session.run({self.session.input_names[0]: image})[0]

        try:
            output = self.augmented.logits(run, prepared.input) if self.augmented else run(prepared.input)
        except Exception as error:  # each engine raises its own kind
            raise UserError(f"{self.session.name} cannot run it: {one_line(error)}") from None
        if self.augmented:
            output = restore_logits(output, prepared.steps)
            return np.ascontiguousarray(_class_ids(output))
        ids = resize_nearest(_class_ids(output), *prepared.input.shape[2:])
        return np.ascontiguousarray(restore(ids, prepared.steps))


def open_predictor(
    folder: Path,
    engine: str = "onnxruntime",
    threads: int = 0,
    augmented: Augmented | None = None,
    precision: str = "float32",
) -> Predictor:
    """Opens an export folder with `engine`, computing in `precision`, on `threads` threads (0: all cores).

    With `augmented` images are predicted by windows, scales and flips; windows slide over what the last Resize to the
    network's size would shrink.

    Raises UserError for a folder that is no export, for a transform that cannot be applied, and for an engine that is
    unknown, not installed or fails.
    """
    deployment = Deployment.load(folder)
    transforms = [
        transform_from_node(node, f"{folder}: transforms[{index}]") for index, node in enumerate(deployment.transforms)
    ]
    if engine != "paddle":
        deployment.check_onnx_file()
    if augmented is not None:
        transforms, augmented = _for_windows(deployment, transforms, augmented)
    try:
        if augmented is None:
            session = open_session(engine, deployment, threads=threads or cores(), precision=precision)
        else:
            session = _session_of_logits(engine, deployment, threads or cores())
    except UserError:
        raise
    except Exception as error:  # each engine raises its own kind
        raise UserError(f"{engine} cannot open the model in {folder}: {one_line(error)}") from None
    if len(session.input_names) != 1:
        raise UserError(f"the model in {folder} has {len(session.input_names)} inputs, not one image: export it again")
    return Predictor(deployment, transforms, session, augmented)


def _for_windows(deployment: Deployment, transforms: list[Any], augmented: Augmented) -> tuple[list[Any], Augmented]:
    """The transforms that leave something for windows to slide over, and windows of the size that the network takes."""
    size = deployment.input_size
    if size is not None and augmented.crop_size not in (None, size):
        raise UserError(f"--crop_size should be {size[0]} {size[1]}, which the network takes; or leave it away")
    slides = augmented.crop_size is not None
    sized = [each for each in transforms if slides and getattr(each, "target_size", None) == size]
    left = [each for each in transforms if each is not (sized or [None])[-1]]
    return left, replace(augmented, crop_size=augmented.crop_size or size, fixed=size is not None)


def _session_of_logits(engine: str, deployment: Deployment, threads: int) -> Session:
    if engine == "paddle":
        raise UserError("--engine paddle gives no logits, which windows, scales and flips need: choose onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "logits.onnx")
        write_logits_model(deployment.onnx_file, file)
        return open_session(engine, file, threads=threads)


def _class_ids(output: NDArray[Any]) -> NDArray[np.uint8]:
    """H,W of the deployed network's output: class ids 1,H,W, or probabilities or logits 1,C,H,W."""
    ids = output.argmax(axis=1) if output.ndim == 4 else output
    if ids.ndim != 3 or len(ids) != 1 or ids.dtype.kind not in "iu" or not ids.size:
        raise UserError(f"the network gives {output.dtype} {output.shape}, which is no class for each pixel")
    if not 0 <= ids.min() <= ids.max() <= 255:
        raise UserError(f"the network gives classes {ids.min()} to {ids.max()}: a mask holds 0 to 255")
    return ids[0].astype(np.uint8)


@dataclass(frozen=True)
class Outcome:
    """How many images were predicted, could not be, and were shrunk by more than MOST_SHRUNK; seconds in all and in the
    engine alone.
    """

    predicted: int
    skipped: int
    shrunk: int
    seconds: float
    engine_seconds: float


def predict_all(predictor: Predictor, jobs: Sequence[Job], console: Screen) -> Outcome:
    """Writes the results of every job; names each image that cannot be predicted on `console`, and goes on.

    Raises UserError when results cannot be written.
    """
    skipped, shrunk, engine_seconds, started = 0, 0, 0.0, time.perf_counter()
    writing: deque[Future[None]] = deque()
    columns = (TextColumn("{task.description}"), BarColumn(32), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

    def load(job: Job) -> tuple[NDArray[np.uint8], Prepared]:
        image = predictor.read(job.image)
        return as_rgb(image), predictor.prepare(image)

    with ThreadPoolExecutor(WORKERS) as pool, progress as bar:
        task = bar.add_task("predicting", total=len(jobs))
        for job, loaded in _ahead(pool, load, jobs):
            try:
                image, prepared = loaded.result()
                shrunk += prepared.shrinks > MOST_SHRUNK
                before = time.perf_counter()
                ids = predictor.run(prepared)
                engine_seconds += time.perf_counter() - before
                writing.append(
                    pool.submit(
                        write_results, job, image, ids, predictor.deployment.palette, predictor.deployment.classes
                    )
                )
            except UserError as error:
                skipped += 1
                console.print(printable_line(f"skipped: {job.image}: {error}"), style="yellow", soft_wrap=True)
            while len(writing) > AHEAD:  # results that wait to be written fill the memory, too
                writing.popleft().result()
            bar.advance(task)
        for written in writing:
            written.result()
    return Outcome(len(jobs) - skipped, skipped, shrunk, time.perf_counter() - started, engine_seconds)


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[Item, Future[Result]]]:
    """Each item with the future of `function(item)`, `AHEAD` of them computed before they are asked for."""
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    for item in items:
        waiting.append((item, pool.submit(function, item)))
        if len(waiting) > AHEAD:
            yield waiting.popleft()
    yield from waiting
