"""Batches for training and for validation, through PaddleSeg's transforms.

Training batch i is a function of (seed, i) and nothing else: not of the number of worker processes, nor of what ran
before in this process. A run that resumes at iteration i therefore sees what it would have seen.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any, TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray

from segslim.data.labels import read_label
from segslim.data.source import Pair
from segslim.data.workers import in_order
from segslim.errors import UserError
from segslim.paddle_compat import import_paddle

paddle = import_paddle()

from paddleseg.transforms import Compose  # noqa: E402  (after Paddle, which must be imported by `import_paddle`)

ArrayBatch = dict[str, NDArray[Any]]


class TensorBatch(TypedDict):
    """`img`: N,3,H,W float32 and `label`: N,H,W int64, as Paddle tensors."""

    img: Any
    label: Any


@dataclass(frozen=True)
class TrainingSet:
    """The endless stream of training samples, cut into batches: epoch after epoch, each in an order of its own.

    A batch may reach from one epoch into the next, so that every image is seen equally often at any batch size.
    """

    pairs: Sequence[Pair]
    transforms: Sequence[Any]
    batch_size: int
    seed: int
    share: tuple[int, int] = (0, 1)
    _orders: dict[int, NDArray[np.int64]] = field(default_factory=dict, repr=False, compare=False)

    def batch(self, iteration: int) -> ArrayBatch:
        """`img` N,3,H,W float32 and `label` N,H,W of the iteration (from 0). Raises `UserError` for unequal sizes.

        With a `share` (i, n) of more than one, it is the i-th of n equal parts of the batch.
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
        """The augmented image (3,H,W) and label (H,W) at a place of the stream."""
        epoch, place = divmod(position, len(self.pairs))
        index = int(self._order(epoch)[place])
        with seeded(self.seed, epoch, index):
            return _transformed(self.pairs[index], self.transforms, label_follows=True)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._orders:
            for past in [known for known in self._orders if known < epoch - 1]:
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
) -> Iterator[TensorBatch]:
    """The batches of iterations `start_iter` (from 0) to `iters` - 1, as Paddle tensors.

    `transforms` are PaddleSeg transforms, as instances; `num_workers` processes apply them ahead of time. A `share` of
    (i, n) stands for the i-th (from 0) of n equal parts of each batch. Close the iterator, or leave it to the garbage
    collector, to end the processes before its end.
    """
    training_set = TrainingSet(pairs, transforms, batch_size, seed, share)
    for batch in in_order(training_set.batch, range(start_iter, iters), num_workers):
        yield {"img": paddle.to_tensor(batch["img"]), "label": paddle.to_tensor(batch["label"].astype(np.int64))}


@dataclass(frozen=True)
class ValidationBatches:
    """Iterable, as often as one likes, over (images N,3,H,W float32, list of N labels H,W at their original size).

    Only images that follow each other and come out of the transforms in one size share a batch.
    """

    pairs: Sequence[Pair]
    transforms: Sequence[Any]
    batch_size: int
    num_workers: int = 0

    def __iter__(self) -> Iterator[tuple[NDArray[np.float32], list[NDArray[Any]]]]:
        samples = in_order(self._sample, self.pairs, self.num_workers)
        for _, equal in groupby(samples, key=lambda sample: sample[0].shape):
            while batch := list(islice(equal, self.batch_size)):
                yield np.stack([image for image, _ in batch]), [label for _, label in batch]

    def _sample(self, pair: Pair) -> tuple[NDArray[np.float32], NDArray[Any]]:
        return _transformed(pair, self.transforms, label_follows=False)


def validation_batches(
    pairs: Sequence[Pair], transforms: Sequence[Any], *, batch_size: int, num_workers: int = 0
) -> ValidationBatches:
    """Batches to evaluate on. The images go through the transforms, the labels stay as they are in their files.

    A transform may resize the image, not pad it: then a prediction could not be laid over its label by resizing.
    """
    return ValidationBatches(pairs, transforms, batch_size, num_workers)


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Python's and numpy's global generators, which PaddleSeg's transforms draw from, seeded; restored at the end."""
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
    data = {
        "img": _read_image(pair),
        "label": _read_label(pair),
        "trans_info": [],
        "gt_fields": ["label"] if label_follows else [],
    }
    data = Compose(list(transforms))(data)
    if not label_follows and any(step[0] == "padding" for step in data["trans_info"]):
        raise UserError("dataset.val_transforms pad the image, so predictions would not fit the labels: use Resize")
    return np.ascontiguousarray(data["img"], np.float32), np.ascontiguousarray(data["label"])


def _read_image(pair: Pair) -> NDArray[np.float32]:
    """H,W,3 in OpenCV's order of colours, as PaddleSeg's `Compose` expects it."""
    image = cv2.imread(str(pair.image), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f"{pair.where}: cannot read the image {pair.image}: replace it or leave it out")
    return image.astype(np.float32)


def _read_label(pair: Pair) -> NDArray[Any]:
    try:
        return read_label(pair)
    except OSError:
        raise UserError(f"{pair.where}: cannot read the label {pair.label}: replace it or leave it out") from None
