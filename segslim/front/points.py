"""A point of the front: one ratio, and the strategy that makes it alone; and the bounds that choose among them."""

import dataclasses
from collections.abc import Sequence

from segslim.config import Config
from segslim.errors import UserError
from segslim.evaluation.front import Bound

BOUNDS = ("miou_loss", "latency_ms", "latency_ratio", "size_mb", "flops_ratio")
#: Where no bound is given: the loss of mIoU that may be.
DEFAULT_LOSS = 0.01
#: Keys of this strategy alone, which no command of a point has; and of ptq alone, which no float point has.
OWN_KEYS = (
    *("front", "latency_ms", "latency_ratio", "size_mb", "flops_ratio", "soft", "pessimistic", "goal", "miou_loss"),
    *("retrain", "hours"),
)
INT8_KEYS = ("calibration", "keep_float", "activations", "precisions")


@dataclasses.dataclass(frozen=True)
class Point:
    """One network of the front.

    ratio: of the FLOPs that go, 0 where nothing is pruned; tuning: the stage that trained what is left, or "".
    """

    ratio: float = 0.0
    align: int = 1
    precision: str = "float32"
    tuning: str = ""

    @property
    def name(self) -> str:
        aligned = f" by {self.align}" if self.align > 1 else ""
        quantized = " int8" if self.precision == "int8" else ""
        trained = {"retrain": " retrained", "distil": " distilled"}.get(self.tuning, "")
        return (f"{self.ratio:g}{aligned}" if self.ratio else "dense") + quantized + trained

    @property
    def strategy(self) -> str:
        quantized = self.precision == "int8"
        return {(0, 0): "none", (0, 1): "ptq", (1, 0): "prune_post", (1, 1): "prune_post_ptq"}[
            self.ratio > 0, quantized
        ]

    def config(self, config: Config) -> Config:
        """That of the strategy that makes this point alone."""
        compress = config.compress
        stages = [name for name in compress.stages if name != "quantize"] if self.ratio else []
        stages += [*filter(None, [self.tuning]), *(["quantize"] if self.precision == "int8" else [])]
        alone = dataclasses.replace(
            compress,
            name=self.strategy,
            stages=stages,
            ratio=self.ratio or None,
            align=self.align,
            miou_loss=type(compress).miou_loss,  # here that of keep_float=auto, not of the front
            front=None,
        )
        timing = dataclasses.replace(config.benchmark, advice=False)  # the other points tell what would be faster
        return dataclasses.replace(config, compress=alone, benchmark=timing)

    def overrides(self, typed: Sequence[str]) -> list[str]:
        """What to type for this point alone, where `typed` was for the front."""
        dropped = [*OWN_KEYS, *(() if self.precision == "int8" else INT8_KEYS), "ratio", "align"]
        keys = tuple(f"compress.{key}{end}" for key in dropped for end in ("=", "."))
        kept = [text for text in typed if not text.startswith(("compress=", "benchmark.advice=", *keys))]
        if not self.ratio:
            kept = [t for t in kept if not t.startswith("compress.") or t.split(".")[1].split("=")[0] in INT8_KEYS]
        pruning = [f"compress.ratio={self.ratio:g}", f"compress.align={self.align}"] if self.ratio else []
        if self.tuning:
            quantize = ",quantize" if self.precision == "int8" else ""
            pruning.append(f"compress.stages=[score,prune,reconstruct,{self.tuning}{quantize}]")
        return [*kept, f"compress={self.strategy}", *pruning, "benchmark.advice=false"]


DENSE = Point()


def bounds_of(config: Config) -> list[Bound]:
    """The bounds that the config gives, hard ones first. Raises UserError where they cannot choose a point."""
    compress = config.compress
    assert compress.front is not None
    given = {name: getattr(compress, name) for name in BOUNDS if getattr(compress, name) is not None}
    if compress.ratio is not None:
        raise UserError(
            f"compress.ratio={compress.ratio:g}: compress=front places the ratios; give compress.front.ratios, or"
            " compress=prune_post for this one alone"
        )
    if config.benchmark.results is not None:
        raise UserError(
            "benchmark.results: compress=front makes networks that nothing has timed; give benchmark.host=user@board"
        )
    if not given:
        given = {"miou_loss": DEFAULT_LOSS}
    for name in compress.soft:
        if name not in given:
            raise UserError(f"compress.soft=[{name}]: compress.{name} has no value; give compress.{name}=...")
    if compress.goal in ("latency", "size") and "miou_loss" not in given:
        raise UserError(
            f"compress.goal={compress.goal}: without compress.miou_loss the most pruned network is the best, whatever"
            f" it predicts; give compress.miou_loss={DEFAULT_LOSS}"
        )
    if compress.goal == "miou" and not given.keys() - {"miou_loss"}:
        raise UserError(
            "compress.goal=miou: without a bound on what it costs, the dense network is the best; give"
            " compress.latency_ratio=0.5 or another bound"
        )
    least, most = compress.front.ratios
    wanted = 1 - given.get("flops_ratio", 1.0)
    if wanted > most:
        raise UserError(
            f"compress.flops_ratio={1 - wanted:g}: compress.front.ratios goes to {most:g} only; give"
            f" compress.front.ratios=[{least:g},{wanted:g}]"
        )
    ends = len(compress.front.align) * len(compress.front.precisions) + ("int8" in compress.front.precisions)
    if compress.front.points < ends:
        raise UserError(
            f"compress.front.points={compress.front.points}: both ends of every curve are {ends} networks already;"
            f" give at least {ends + 1}, or fewer of compress.front.align or compress.front.precisions"
        )
    found = [Bound(name, value, name in compress.soft, compress.pessimistic) for name, value in given.items()]
    return sorted(found, key=lambda bound: bound.soft)


def first(config: Config) -> Config:
    """Of compress=front, the config of a point, for a plan that shows what will run and raises UserError for what none
    can do. Any other config as it is.
    """
    front = config.compress.front
    if front is None:
        return config
    bounds_of(config)
    # the least ratio: where a network cannot lose the most, the search finds what it can
    return Point(front.ratios[0], front.align[0], front.precisions[-1]).config(config)
