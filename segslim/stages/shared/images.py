"""The images and labels of a config: listed, checked, transformed, in batches."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from segslim.config import Config
from segslim.data import Pair, Source
from segslim.data.source import Dataset
from segslim.errors import UserError
from segslim.plugins import instantiate

#: Arguments of transforms and losses that name the ignored number; PaddleSeg's default of each is 255.
LABEL_FILLS = ("label_padding_value", "ignore_index")

Batches = Iterable[tuple[np.ndarray, list[np.ndarray]]]


def source(config: Config) -> Source:
    """The data set that the config names. Raises UserError when its `_target_` cannot be made."""
    made: Source = instantiate(config.dataset.source, "dataset.source")
    return made


def listed_pairs(config: Config, dataset: Dataset, split: str) -> list[Pair]:
    """Every pair that the data set lists."""
    strict = {} if config.dataset.on_error == "raise" else {"strict": False}
    return source(config).pairs(dataset.folder, split, **strict)


def require_labels(config: Config, need: str) -> None:
    """Raises UserError where the data set has no labels; `need` says what needs them, and what to do without."""
    if not config.dataset.labelled:
        raise UserError(f"dataset={config.dataset.name} has no labels: {need}")


def usable_pairs(config: Config, dataset: Dataset, split: str) -> list[Pair]:
    """The pairs that passed the check of the stage `data`."""
    return dataset.usable(listed_pairs(config, dataset, split), split)


def evenly(count: int, wanted: int | None) -> list[int]:
    """`wanted` of `count` positions, spread evenly, since neighbours in a list are often frames of one film."""
    return list(range(count)) if wanted is None or wanted >= count else [i * count // wanted for i in range(wanted)]


def transforms(config: Config, split: str) -> list[Any]:
    """The PaddleSeg transforms of "train" or "val", in their order; labels are padded with the ignored number."""
    from segslim.paddle_compat import import_paddleseg

    import_paddleseg()
    nodes = config.dataset.train_transforms if split == "train" else config.dataset.val_transforms
    padding = dict.fromkeys(LABEL_FILLS, config.dataset.ignore_index) if split == "train" else {}
    return [instantiate(node, f"dataset.{split}_transforms[{at}]", padding) for at, node in enumerate(nodes)]


def batches(config: Config, pairs: Sequence[Pair], made: list[Any] | None = None) -> Batches:
    """Single images 1,3,H,W after the validation transforms, with their labels: what the deployed network is given.

    `made` are other transforms, as instances.
    """
    from segslim.data.loading import ValidationBatches

    return ValidationBatches(pairs, transforms(config, "val") if made is None else made, batch_size=1)


def unlabelled_images(config: Config, dataset: Dataset, wanted: int) -> list[np.ndarray]:
    """`wanted` training images 1,3,H,W, spread evenly over the list, as the deployed network is given them; all where
    there are fewer.
    """
    pairs = usable_pairs(config, dataset, "train")
    return [image for image, _ in batches(config, [pairs[position] for position in evenly(len(pairs), wanted)])]
