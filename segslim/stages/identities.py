"""What a stage depends on beside its config and its inputs: files, code of the user's own, the machine. No Paddle."""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from segslim.channels.importance import criterion_of
from segslim.config import Config
from segslim.disk import sha256_of
from segslim.errors import UserError
from segslim.machine import cores, processor
from segslim.outside import code_of, is_path
from segslim.pipeline.fingerprint import config_slice
from segslim.stages.shared.pairs import source

_GRADIENTS = (
    *("seed", "device", "model.loss", "retrain.batch_size", "compress.taylor"),
    *("dataset.train_transforms", "dataset.num_classes", "dataset.ignore_index"),
)
_VERSIONED = ("paddle", "paddleseg", "segslim")  # their version or the stage's is in the fingerprint


def data_identity(config: Config) -> Any:
    """The content of the data set; its files are there when this returns, unless those that are not are left out."""
    cache = Path(config.store) / "file-digests.json"
    if config.dataset.on_error == "raise":
        return source(config).identity(cache)
    return {"content": source(config).identity(cache, strict=False), "on_error": config.dataset.on_error}


def weights_and_code(config: Config) -> Any:
    """The content of train.checkpoint, and of the files that hold a network, loss or transform of the user's own."""
    modules = (target.rpartition(".")[0] for target in _targets([config.model, config.dataset.train_transforms]))
    code = code_of(module for module in modules if module.partition(".")[0] not in _VERSIONED)
    return {"weights": _given_weights(config), "code": code} if code else _given_weights(config)


def _targets(node: Any) -> Iterator[str]:
    """Every `_target_` at and below a node."""
    if dataclasses.is_dataclass(node):
        node = vars(node)
    if isinstance(node, dict):
        yield from filter(None, [node.get("_target_")])
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _targets(child)


def _given_weights(config: Config) -> str | None:
    """A digest of a file or a folder, or None where the network is to be trained."""
    if config.train.checkpoint is None:
        return None
    path = Path(config.train.checkpoint)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        try:
            digest.update(file.name.encode() + bytes.fromhex(sha256_of(file)))
        except OSError as error:
            raise UserError(f"train.checkpoint={path}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()


def machine(config: Config) -> dict[str, Any]:
    """What a latency depends on besides the software: another machine measures anew."""
    here = {"processor": processor(), "cores": cores()}
    return here | _own_code([*config.engine.candidates, *config.compress.rules.values()])


def scoring(config: Config) -> dict[str, Any]:
    """What the scores depend on beside the weights: for gradients, how training data is made."""
    criterion = config.compress.criterion
    assert criterion is not None  # check_pruning saw to it
    drawn = ("seed",) if criterion == "random" or is_path(criterion) else ()
    read = config_slice(config, _GRADIENTS if criterion_of(criterion).by_gradient else drawn)
    return read | _own_code([criterion, *config.compress.rules.values()])


def _own_code(paths: Iterable[str]) -> dict[str, Any]:
    """{"code": digests} of the files that hold what the config names by path; nothing where it names none."""
    digests = code_of(path.partition(":")[0] for path in paths if is_path(path))
    return {"code": digests} if digests else {}
