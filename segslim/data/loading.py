"""Batches for training and for validation, through PaddleSeg's transforms, by worker processes.

Training batch i is a function of (seed, i) alone: not of the number of worker processes, nor of what ran before in
this process. A run that resumes at iteration i therefore sees what it would have seen.
"""

import multiprocessing
import random
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby, islice
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from segslim.data.source import Pair
from segslim.errors import SIGNALS, UserError
from segslim.paddle_compat import import_paddle

#: Of workers: Windows has no fork, and on macOS libraries do not survive one. Then functions and items are pickled.
START_METHOD = "fork" if sys.platform == "linux" else "spawn"

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class TrainingSet:
    """The endless stream of training samples, in batches: epoch after epoch, each in its own order.

    A batch may reach from one epoch into the next, so that every image is seen equally often at any batch size.
    """

    pairs: Sequence[Pair]
    transforms: Sequence[Any]
    batch_size: int
    seed: int
    share: tuple[int, int] = (0, 1)
    _orders: dict[int, NDArray[np.int64]] = field(default_factory=dict, repr=False, compare=False)

    def batch(self, iteration: int) -> dict[str, NDArray[Any]]:
        """`img` N,3,H,W float32 and `label` N,H,W of the iteration (from 0). Raises `UserError` for unequal sizes.

        With a `share` (i, n), it is the i-th (from 0) of n equal parts of the batch.
        """
        part, parts = self.share
        count = self.batch_size // parts
        first = iteration * self.batch_size + part * count
        samples = [self.sample(position) for position in range(first, first + count)]
        shapes = {image.shape for image, _ in samples}
        if len(shapes) > 1:
            sizes = " and ".join(sorted(f"{shape[2]} x {shape[1]}" for shape in shapes))
            raise UserError(
                f"training images of one batch are {sizes} pixels: end dataset.train_transforms with one size "
                "(Resize or RandomPaddingCrop)"
            )
        return {"img": np.stack([image for image, _ in samples]), "label": np.stack([label for _, label in samples])}

    def sample(self, position: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """The augmented image (3,H,W) and label (H,W) at a position of the stream."""
        epoch, place = divmod(position, len(self.pairs))
        index = int(self._order(epoch)[place])
        with seeded(self.seed, epoch, index):
            return _transformed(self.pairs[index], self.transforms, label_follows=True)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._orders:
            for past in [known for known in self._orders if known < epoch - 1]:  # a batch may need two epochs' orders
                del self._orders[past]
            self._orders[epoch] = np.random.default_rng((self.seed, epoch)).permutation(len(self.pairs))
        return self._orders[epoch]


def training_loader(
    pairs: Sequence[Pair],
    transforms: Sequence[Any],
    *,
    batch_size: int,
    seed: int,
    start_iter: int,
    iters: int,
    num_workers: int = 0,
    share: tuple[int, int] = (0, 1),
) -> Iterator[dict[str, Any]]:
    """The batches of iterations `start_iter` to `iters` - 1: `img` N,3,H,W float32, `label` N,H,W int64, both tensors.

    Args:
        pairs: The training images and labels.
        transforms: PaddleSeg transforms, as instances.
        batch_size: Images in a batch.
        seed: Of the order and of the augmentation.
        start_iter: The first iteration, from 0.
        iters: The number of iterations of a run from 0.
        num_workers: Processes that apply the transforms ahead of time; they end when the iterator is closed.
        share: (i, n) for the i-th (from 0) of n equal parts of each batch.
    """
    paddle = import_paddle()
    training_set = TrainingSet(pairs, transforms, batch_size, seed, share)
    for batch in map_in_order(training_set.batch, range(start_iter, iters), num_workers):
        yield {"img": paddle.to_tensor(batch["img"]), "label": paddle.to_tensor(batch["label"].astype(np.int64))}


class PaddedLabel(np.ndarray):
    """A label, H,W at its original size, of an image that was padded: what has to be undone on a prediction first.

    size_of_input: (height, width) of the network's input; steps: (height, width, whether it padded) before each change
    of size, the first one first.
    """

    size_of_input: tuple[int, int]
    steps: tuple[tuple[int, int, bool], ...]

    @staticmethod
    def of(label: NDArray[Any], size: tuple[int, int], steps: tuple[tuple[int, int, bool], ...]) -> "PaddedLabel":
        padded = np.asarray(label).view(PaddedLabel)
        padded.size_of_input, padded.steps = size, steps
        return padded

    def __reduce__(self) -> Any:  # from a worker process
        return PaddedLabel.of, (np.asarray(self), self.size_of_input, self.steps)


@dataclass(frozen=True)
class ValidationBatches:
    """Iterable, any number of times, over (images N,3,H,W float32, list of N labels H,W at their original size).

    Only consecutive images that the transforms bring to one size share a batch. The label of an image that was padded
    is a PaddedLabel.
    """

    pairs: Sequence[Pair]
    transforms: Sequence[Any]
    batch_size: int
    num_workers: int = 0

    def __iter__(self) -> Iterator[tuple[NDArray[np.float32], list[NDArray[Any]]]]:
        samples = map_in_order(self._sample, self.pairs, self.num_workers)
        for _, equal in groupby(samples, key=lambda sample: sample[0].shape):
            while batch := list(islice(equal, self.batch_size)):
                yield np.stack([image for image, _ in batch]), [label for _, label in batch]

    def _sample(self, pair: Pair) -> tuple[NDArray[np.float32], NDArray[Any]]:
        return _transformed(pair, self.transforms, label_follows=False)


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seeds the global generators of Python and numpy, which PaddleSeg's transforms use; restores them at the end."""
    before = random.getstate(), np.random.get_state()
    words = np.random.SeedSequence(key).generate_state(8)
    random.seed(words.tobytes())
    np.random.seed(words)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def _transformed(
    pair: Pair, transforms: Sequence[Any], label_follows: bool
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    import_paddle()
    from paddleseg.transforms import Compose

    image = pair.read_image().astype(np.float32)
    label = np.full(image.shape[:2], pair.reading.ignored, np.uint8) if pair.label is None else pair.read_label()
    data = {
        "img": image,
        "label": label,
        "trans_info": [],
        "gt_fields": ["label"] if label_follows else [],
    }
    compose = Compose(list(transforms), to_rgb=False, img_channels=pair.reading.channels)  # it is RGB already
    data = compose(data)
    image, label = np.ascontiguousarray(data["img"], np.float32), np.ascontiguousarray(data["label"])
    steps = tuple((*map(int, step[1][:2]), step[0] == "padding") for step in data["trans_info"])
    if not label_follows and any(padded for *_, padded in steps):
        label = PaddedLabel.of(label, image.shape[1:], steps)
    return image, label


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item], num_workers: int) -> Iterator[Result]:
    """`map(function, items)` by `num_workers` processes (0: by this one), each one result ahead.

    Not `paddle.io.DataLoader`: there a worker's exception reaches the caller as a broken queue instead of as itself,
    and at `num_workers=0` a thread runs the transforms, whose global random generators the training loop shares.

    An exception of the function is raised here. The processes end with the iterator, and with this process, whose death
    breaks the pipes that they write to. Raises `UserError` when a process is killed.
    """
    if num_workers == 0:
        yield from map(function, items)
        return
    listed = list(items)
    workers: list[tuple[BaseProcess, Connection]] = []
    try:
        for first in range(min(num_workers, len(listed))):
            workers.append(_start(function, listed[first::num_workers], [results for _, results in workers]))
        for position in range(len(listed)):
            process, results = workers[position % num_workers]
            try:
                result, error = results.recv()
            except EOFError:
                process.join()
                raise UserError(
                    f"a data-loading process ended with code {process.exitcode} (-9: killed, often because memory ran "
                    "out): lower num_workers or the batch size"
                ) from None
            if error is not None:
                raise error
            yield result
    finally:
        for process, results in workers:
            process.kill()  # not `terminate`: they ignore SIGTERM
            process.join()
            results.close()


def _start(
    function: Callable[[Any], Any], items: Sequence[Any], siblings: Sequence[Connection]
) -> tuple[BaseProcess, Connection]:
    context: Any = multiprocessing.get_context(START_METHOD)
    results, sending = context.Pipe(duplex=False)
    # A pipe breaks only when no process holds its reading end any more: a worker must close those it inherits.
    inherited = [results, *siblings] if START_METHOD == "fork" else []
    process = context.Process(target=_work, args=(function, items, sending, inherited), daemon=True)
    process.start()
    sending.close()
    return process, results


def _work(
    function: Callable[[Any], Any], items: Sequence[Any], sending: Connection, inherited: Sequence[Connection]
) -> None:
    import cv2

    for connection in inherited:
        connection.close()
    for number in SIGNALS:  # these may reach the whole group; the parent ends its workers
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)  # OpenCV's own threads did not survive the fork, and waiting for them would never end
    with suppress(BrokenPipeError):
        for item in items:
            try:
                outcome = (function(item), None)
            except Exception as error:
                sending.send((None, error))
                return
            sending.send(outcome)
