"""config -> what runs: the stages in order, and the config that each of them sees, with every `auto` decided.

The one place where something else than what was typed is decided; the run's first lines show it.
"""

import dataclasses
from typing import Any

from segslim.config import Config, ImageInput
from segslim.devices.board import Board
from segslim.hardware import instruction_set
from segslim.networks.network import with_image_channels
from segslim.stages.shared.sessions import other_machine

#: Criteria whose scores compare between groups: the change of the network's output or loss.
COMPARABLE = ("obc", "fisher", "taylor")
#: What one step of a gradual pruning begins with, at whichever of these stands first.
PRUNING = ("score", "analyze", "prune")
#: And what it ends with, the first of these that there is.
ENDS = ("reconstruct", "retrain", "distil")
#: What sees images as the deployed network will.
DEPLOYED = ("export", "select", "evaluate", "preview", "parity")

#: Behind the last of these it is known how good int8 is.
QUANTIZING = ("quantize", "retrain", "distil")


def resolve(config: Config) -> list[tuple[str, Config]]:
    """stages.first, compress.stages, stages.last and compress.after, in this order; compress.stages alone where it
    begins with a stage of stages.first, as [data, train] does. Where the data set has no labels, pseudo_label follows
    on train.

    Decided here: `auto` in compress.criterion, compress.allocation and export.target (see `_decide`); `analyze`
    is left out where the allocation has no use for it; where compress.miou_loss is given, `place` stands behind what
    quantizes, unless keep_float=auto is to keep it; and where compress.schedule has several entries, the stages of the
    pruning stand once for each, and see compress.ratio times that entry. A network that is deployed for any size is
    judged on images as they are, and an exported one on images as model.input says that it takes them.
    """
    config = _decide(config)
    network = with_image_channels(config.model.network, config.dataset.channels)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, network=network))
    if config.model.input is not None:
        config = _with_normalization(config, config.model.input)
    compress = config.compress
    own = [name for name in compress.stages if name != "analyze" or compress.allocation in ("equal_loss", None)]
    bounded = compress.miou_loss is not None and compress.keep_float != "auto" and compress.front is None
    if bounded and "quantize" in own:
        own.insert(max(at for at, name in enumerate(own, 1) if name in QUANTIZING), "place")
    first, end = _pruning(own)
    listed_whole = bool(own) and own[0] in config.stages.first
    before = () if listed_whole else config.stages.first
    after = () if listed_whole else (*config.stages.last, *compress.after)
    steps = [
        *((name, config) for name in (*before, *own[:first])),
        *((name, _at(config, share)) for share in compress.schedule for name in own[first:end]),
        *((name, config) for name in (*own[end:], *after)),
    ]
    instead = {} if config.dataset.labelled else {"train": ("train", "pseudo_label")}
    if config.export.size == "dynamic":
        steps = [(name, _without_resize(seen) if name in DEPLOYED else seen) for name, seen in steps]
    return [(each, seen) for name, seen in steps for each in instead.get(name, (name,))]


def _with_normalization(config: Config, wanted: ImageInput) -> Config:
    """With what model.input says in place of the data set's normalization; paddleseg.transforms.Normalize divides by
    255 first.
    """
    channels = config.dataset.channels
    mean, std = wanted.mean or [0.0] * channels, wanted.std or [1.0] * channels
    unit = 255 * wanted.scale
    numbers = {"mean": [each / unit for each in mean], "std": [each / unit for each in std]}

    def normalized(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**node, **numbers} if node["_target_"].endswith(".Normalize") else node for node in nodes]

    dataset = config.dataset
    train, val = normalized(dataset.train_transforms), normalized(dataset.val_transforms)
    return dataclasses.replace(config, dataset=dataclasses.replace(dataset, train_transforms=train, val_transforms=val))


def _without_resize(config: Config) -> Config:
    """Without what brings images to dataset.size, which training needs."""
    dataset = config.dataset
    resize = {"target_size": list(dataset.size)}
    nodes = [
        node
        for node in dataset.val_transforms
        if not (node["_target_"].endswith(".Resize") and {k: node[k] for k in node if k != "_target_"} == resize)
    ]
    return dataclasses.replace(config, dataset=dataclasses.replace(dataset, val_transforms=nodes))


def _decide(config: Config) -> Config:
    """With what suits the stages and each other for `auto` in compress.allocation and compress.criterion, and this
    machine, or the board, in export.target.

    Chosen by measurement (benchmarks/recovery.py criteria, the table in the README): obc where the rest is solved for,
    and fisher where it is not.
    """
    if config.export.target == "auto":
        device = other_machine(config)
        target = device.machine["instructions"] if isinstance(device, Board) else instruction_set()
        config = dataclasses.replace(config, export=dataclasses.replace(config.export, target=target))
    compress = config.compress
    allocation, criterion = compress.allocation, compress.criterion
    if allocation == "auto":
        alone = criterion in ("auto", *COMPARABLE) or "analyze" not in compress.stages
        allocation = "global" if alone else "equal_loss"
    if criterion == "auto":
        best = "obc" if "reconstruct" in compress.stages else "fisher"
        criterion = best if allocation == "global" else "l1_norm"
    if (allocation, criterion) == (compress.allocation, compress.criterion):
        return config
    decided = dataclasses.replace(compress, allocation=allocation, criterion=criterion)
    return dataclasses.replace(config, compress=decided)


def _pruning(stages: list[str]) -> tuple[int, int]:
    """Where a pruning begins, and behind its end: from the first of PRUNING to the first of ENDS after prune, or else
    prune itself. An empty range at the end where nothing is pruned.
    """
    if "prune" not in stages:
        return len(stages), len(stages)
    prune = stages.index("prune")
    first = min(stages.index(name) for name in PRUNING if name in stages)
    end = next((stages.index(name, prune) for name in ENDS if name in stages[prune:]), prune)
    return first, end + 1


def _at(config: Config, share: float) -> Config:
    compress = config.compress
    if compress.ratio is None:  # the stage that reads it will say so
        return config
    return dataclasses.replace(config, compress=dataclasses.replace(compress, ratio=compress.ratio * share))
