"""config -> the stages that run, in order, and what each of them sees of the config."""

import dataclasses

from segslim.config import Config

#: Up to this ratio measured sensitivities lost less mIoU than Taylor scores, beyond it more: Fast-SCNN and BiSeNetV2 on
#: CamVid at 0.2, 0.3 and 0.5, equally retrained (benchmarks/criteria.py, the table in the README).
LIGHT = 0.25
#: What one step of a gradual pruning begins with, at whichever of these stands first.
PRUNING = ("score", "analyze", "prune")


def unroll(config: Config) -> list[tuple[str, Config]]:
    """The stages of the strategy, those of the pruning once for every entry of compress.schedule.

    A pruning is the run of stages from the first of `PRUNING` up to and including the first retrain after prune (or
    prune itself, where nothing retrains); at a share of the schedule it sees compress.ratio times that share. A
    sensitivity that compress.allocation has no use for is not measured; `auto` there and in compress.criterion has
    become what it stands for. Where compress.target is latency, each prune becomes profile and prune_latency.
    """
    config = _chosen(config)
    stages = [name for name in config.compress.stages if name != "analyze" or _analyzes(config)]
    first, end = _pruning(stages)
    steps = [(name, _at(config, share)) for share in config.compress.schedule for name in stages[first:end]]
    unrolled = [*((name, config) for name in stages[:first]), *steps, *((name, config) for name in stages[end:])]
    return [(name, seen) for stage, seen in unrolled for name in _by_target(stage, config)]


def _chosen(config: Config) -> Config:
    """With what suits compress.ratio and each other for `auto` in compress.allocation and compress.criterion."""
    compress = config.compress
    allocation, criterion = compress.allocation, compress.criterion
    if allocation == "auto":
        heavy = compress.ratio is not None and compress.ratio > LIGHT
        analyzed = "analyze" in compress.stages
        allocation = "global" if criterion in ("auto", "taylor") and (heavy or not analyzed) else "equal_loss"
    if criterion == "auto":
        criterion = "taylor" if allocation == "global" else "l1_norm"
    if (allocation, criterion) == (compress.allocation, compress.criterion):
        return config
    return dataclasses.replace(
        config, compress=dataclasses.replace(compress, allocation=allocation, criterion=criterion)
    )


def _analyzes(config: Config) -> bool:
    return config.compress.allocation in ("equal_loss", None)


def _by_target(stage: str, config: Config) -> tuple[str, ...]:
    latency = stage == "prune" and config.compress.target == "latency"
    return ("profile", "prune_latency") if latency else (stage,)


def _pruning(stages: list[str]) -> tuple[int, int]:
    """Where the pruning begins, and where it has ended; an empty range at the end where nothing is pruned."""
    if "prune" not in stages:
        return len(stages), len(stages)
    prune = stages.index("prune")
    first = min(stages.index(name) for name in PRUNING if name in stages)
    end = stages.index("retrain", prune) if "retrain" in stages[prune:] else prune
    return first, end + 1


def _at(config: Config, share: float) -> Config:
    compress = config.compress
    if compress.ratio is None:  # the stage that reads it will say so
        return config
    return dataclasses.replace(config, compress=dataclasses.replace(compress, ratio=compress.ratio * share))
