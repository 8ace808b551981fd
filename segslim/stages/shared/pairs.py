"""The data set of a config; the images and labels of the artifact `dataset`, without those that `data` left out."""

from pathlib import Path

from segslim.config import Config
from segslim.data import Pair, Source
from segslim.instantiate import instantiate
from segslim.records import SKIPPED, read_record


def source(config: Config) -> Source:
    """The data set that the config names. Raises UserError when its `_target_` cannot be made."""
    made: Source = instantiate(config.dataset.source, "dataset.source")
    return made


def listed_pairs(config: Config, dataset: Path, split: str) -> list[Pair]:
    """Every pair that the data set lists; `dataset` is the artifact of this stage."""
    if config.dataset.on_error == "raise":
        return source(config).pairs(dataset, split)
    return source(config).pairs(dataset, split, strict=False)


def usable_pairs(config: Config, dataset: Path, split: str) -> list[Pair]:
    """The pairs that passed the check."""
    skipped = read_record(dataset, SKIPPED)[split]
    return [pair for at, pair in enumerate(listed_pairs(config, dataset, split)) if str(at) not in skipped]


def evenly(count: int, wanted: int | None) -> list[int]:
    """`wanted` of `count` positions, spread evenly, since neighbours in a list are often frames of one film."""
    return list(range(count)) if wanted is None or wanted >= count else [i * count // wanted for i in range(wanted)]
