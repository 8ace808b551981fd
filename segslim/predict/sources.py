"""Many images, images too large for memory, videos and cameras: read, predicted and written side by side."""

import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from segslim.data.images import MOST_PIXELS, TIFF, as_bands, as_rgb
from segslim.errors import UserError, deferred
from segslim.predict.predictor import Predictor, Prepared, class_ids
from segslim.predict.preprocessing import apply
from segslim.predict.results import Job, Place, Results
from segslim.screen import Screen
from segslim.streams import printable_line

VIDEOS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})
USUAL_FPS = 25.0  # where a video or a camera does not tell
WORKERS = 2  # threads that read and write while the engine runs
AHEAD = 4  # images in memory on either side of it
MOST_SHRUNK = 4  # times, without a word: a thing of 8 pixels has 2 then
CACHE = 256  # megabytes of tiles that GDAL keeps
OVERVIEW = 4096  # pixels of the longer side of an overlay of what is too large for memory

Item = TypeVar("Item")
Result = TypeVar("Result")
Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Outcome:
    """How many images or frames were predicted, could not be, and were shrunk by more than MOST_SHRUNK; seconds in all
    and in the engine alone; the signal that ended it before, or 0.
    """

    predicted: int
    skipped: int
    shrunk: int
    seconds: float
    engine_seconds: float
    stopped_by: int = 0


def predict_images(predictor: Predictor, jobs: Sequence[Job], results: Results, console: Screen) -> Outcome:
    """Writes the results of every job; names each image that cannot be predicted on `console`, and goes on.

    Raises UserError when results cannot be written.
    """
    skipped, shrunk, predicted, engine_seconds, started = 0, 0, 0, 0.0, time.perf_counter()
    writing: deque[Future[None]] = deque()

    def load(job: Job) -> tuple[NDArray[np.uint8], Prepared, Place | None] | None:
        if _is_large(job.image, predictor):
            return None
        image = predictor.read(job.image)
        return as_rgb(image), predictor.prepare(image), _place_of(job.image)

    with deferred(then_end=False) as stopped, ThreadPoolExecutor(WORKERS) as pool, _bar(console, len(jobs)) as tell:
        for number, (job, loaded) in enumerate(_ahead(pool, load, jobs)):
            if stopped():
                break
            try:
                before = time.perf_counter()
                if (given := loaded.result()) is None:
                    predict_in_bands(predictor, job, results)
                    engine_seconds += time.perf_counter() - before
                else:
                    image, prepared, place = given
                    shrunk += prepared.shrinks > MOST_SHRUNK
                    before = time.perf_counter()
                    ids = predictor.run(prepared)
                    engine_seconds += time.perf_counter() - before
                    writing.append(pool.submit(results.write, job.name, image, ids, place))
                predicted += 1
            except UserError as error:
                skipped += 1
                console.print(printable_line(f"skipped: {job.image}: {error}"), style="yellow", soft_wrap=True)
            while len(writing) > AHEAD:  # results that wait to be written fill the memory, too
                writing.popleft().result()
            tell(number + 1, len(jobs))
        for written in writing:
            written.result()
        results.close()
        return Outcome(predicted, skipped, shrunk, time.perf_counter() - started, engine_seconds, stopped())


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


@contextmanager
def _bar(console: Screen, total: int | None) -> Iterator[Tell]:
    """Called with how many are done, and of how many."""
    columns = (TextColumn("{task.description}"), BarColumn(32), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("predicting", total=total)
        yield lambda done, of: progress.update(task, completed=done, total=of or None)


# --- videos and cameras


def video_of(source: Path) -> Path | int | None:
    """The video file or the number of the camera that was typed; None where it is neither."""
    if source.suffix.lower() in VIDEOS and source.is_file():
        return source
    return int(str(source)) if str(source).isdigit() and not source.exists() else None


def predict_video(
    predictor: Predictor, source: Path | int, results: Results, console: Screen, most: int | None = None
) -> Outcome:
    """Predicts `most` frames, or all: overlays become one video, `overlays/NAME.mp4`, and all else is written of each
    frame as of an image, `NAME/000000`, `NAME/000001`, ... What is done when a signal comes is kept.

    Raises UserError for what cannot be opened, or has not the channels that the network takes.
    """
    name = source.stem if isinstance(source, Path) else f"camera{source}"
    if predictor.deployment.channels not in (1, 3):
        raise UserError(f"a video has 3 channels, and this network takes {predictor.deployment.channels}")
    capture = cv2.VideoCapture(str(source) if isinstance(source, Path) else source)
    where = str(source) if isinstance(source, Path) else f"camera {source}"
    if not capture.isOpened():
        raise UserError(
            f"{where}: cannot be opened; give a video that OpenCV reads, or the number of a camera that is there"
        )
    frames = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0) if isinstance(source, Path) else 0
    fps = capture.get(cv2.CAP_PROP_FPS)
    fps = fps if 0 < fps < 1000 else USUAL_FPS
    engine_seconds, done, started = 0.0, 0, time.perf_counter()
    of_frames = replace(results, kinds=[kind for kind in results.kinds if kind != "overlays"])
    wanted = min(frames, most or frames) or most or 0
    film = results.film(name, fps) if "overlays" in results.kinds else None

    def load(_: int) -> tuple[NDArray[np.uint8], Prepared] | None:
        there, frame = capture.read()
        if not there:
            return None
        image = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        grey = predictor.deployment.channels == 1
        return image, predictor.prepare(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)[..., None] if grey else image)

    def write(number: int, image: NDArray[np.uint8], ids: NDArray[np.uint8]) -> None:
        if film is not None:
            film.add(image, ids)
        of_frames.write(f"{name}/{number:06d}", image, ids)

    # frames are read in order, and written in order: by one thread each
    with ExitStack() as stack:
        stopped = stack.enter_context(deferred(then_end=False))
        tell = stack.enter_context(_bar(console, wanted or None))
        stack.callback(capture.release)
        if film is not None:
            stack.callback(film.release)
        reader, writer = (stack.enter_context(ThreadPoolExecutor(1)) for _ in range(2))
        writing: deque[Future[None]] = deque()
        for number, loaded in _ahead(reader, load, range(most or 1 << 60)):
            given = None if stopped() else loaded.result()
            if given is None:
                break
            before = time.perf_counter()
            ids = predictor.run(given[1])
            engine_seconds += time.perf_counter() - before
            writing.append(writer.submit(write, number, given[0], ids))
            while len(writing) > AHEAD:
                writing.popleft().result()
            done += 1
            tell(done, wanted)
        for written in writing:
            written.result()
        of_frames.close()
    if not done:
        raise UserError(f"{where}: no frame of it can be read")
    if done < wanted and not stopped():
        console.print(f"{where}: says that it has {frames} frames; {done} of them can be read", style="yellow")
    return Outcome(done, 0, 0, time.perf_counter() - started, engine_seconds, stopped())


# --- what is on earth, and what is too large for memory


def _rasterio() -> Any:
    import warnings

    import rasterio
    import rasterio.windows

    warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)
    return rasterio


def _place_of(image: Path) -> Place | None:
    """None too where rasterio is not there to tell."""
    if image.suffix.lower() not in TIFF or find_spec("rasterio") is None:
        return None
    try:
        with _rasterio().open(image) as file:
            return Place(file.transform, file.crs) if file.crs is not None else None
    except OSError:  # a TIFF that OpenCV reads and GDAL does not
        return None


def _is_large(image: Path, predictor: Predictor) -> bool:
    """Whether windows are to be read from the file one by one; what else is too large, `read_image` refuses."""
    if predictor.augmented is None or predictor.augmented.crop_size is None or image.suffix.lower() not in TIFF:
        return False
    if find_spec("rasterio") is None:
        return False
    try:
        with _rasterio().open(image) as file:
            return bool(file.width * file.height > MOST_PIXELS)
    except OSError:
        return False


def predict_in_bands(predictor: Predictor, job: Job, results: Results) -> None:
    """Predicts a TIFF, row of windows by row of windows: in memory are the logits of one row.

    The overlay is an overview of at most OVERVIEW pixels a side. Raises UserError for what needs the whole image.
    """
    rasterio, way = _rasterio(), predictor.augmented
    assert way is not None
    if tuple(way.scales) != (1.0,) or way.flips:
        raise UserError(f"is over {MOST_PIXELS // 1_000_000} million pixels: leave out --scales and flips")
    if "coco" in results.kinds:
        raise UserError(f"is over {MOST_PIXELS // 1_000_000} million pixels: --write polygons in place of coco")
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE))  # by itself, 5 % of the machine's memory
        source = stack.enter_context(rasterio.open(job.image))
        height, width = source.shape
        place = Place(source.transform, source.crs) if source.crs is not None else None
        temporary = stack.enter_context(tempfile.TemporaryDirectory())
        writing = results if "masks" in results.kinds else replace(results, output=Path(temporary))

        def read(top: int, left: int, bottom: int, right: int) -> NDArray[np.float32]:
            window = rasterio.windows.Window(left, top, right - left, bottom - top)
            try:
                pixels = np.moveaxis(source.read(window=window), 0, -1)
            except OSError as error:
                raise UserError(f"cannot be read from row {top} on ({error}): replace it") from None
            prepared, steps = apply(predictor.transforms, as_bands(pixels, job.image, "", predictor.reading))
            if steps:
                raise UserError("is read window by window, and the transforms change its size: predict it in pieces")
            return prepared

        counts = np.zeros(256, np.int64)
        with writing.raster(job.name, (height, width), place) as mask:
            for top, logits in way.bands(predictor.output, read, height, width):
                ids = class_ids(logits)
                counts += np.bincount(ids.ravel(), minlength=256)
                mask.write(ids, 1, window=rasterio.windows.Window(0, top, width, len(ids)))
        results.count(job.name, np.trim_zeros(counts, "b"), place)
        mask = stack.enter_context(rasterio.open(writing.file("masks", job.name, ".tif")))
        if "overlays" in results.kinds:
            share = min(1.0, OVERVIEW / max(height, width))
            small = max(1, round(height * share)), max(1, round(width * share))
            pixels = np.moveaxis(source.read(out_shape=(source.count, *small)), 0, -1)
            image = as_rgb(as_bands(pixels, job.image, "", predictor.reading))
            results.write_overlay(job.name, image, mask.read(1, out_shape=small))
        if "polygons" in results.kinds:
            results.write_polygons(job.name, results.outlines(rasterio.band(mask, 1), place), place)
