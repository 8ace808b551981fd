"""The checkpoint folder: the same whichever stage wrote it.

model.yaml            how to build the network: its `_target_` node
channels.json         which channels are left; absent when dense
weights.safetensors   parameters and running statistics, by their names in the state dict
metrics.json          what its training measured
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import yaml

from segslim.channels import Channels, apply_channels
from segslim.errors import UserError
from segslim.networks.build import build_network
from segslim.networks.weights import WEIGHTS_FILE, load_weights, read_safetensors, set_weights, weights_of
from segslim.records import METRICS, write_record

CHANNELS_FILE = "channels.json"


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A network as a checkpoint has it, and what the checkpoint says of it."""

    network: Any
    model: dict[str, Any]
    channels: Channels | None


def save_checkpoint(
    folder: str | os.PathLike[str],
    network: Any,
    model: Mapping[str, Any],
    channels: Channels | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> None:
    """Writes a checkpoint into `folder`: `model` as build_network takes it, `channels` as shrinking returned them."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    (target / "model.yaml").write_text(yaml.safe_dump(dict(model), sort_keys=False), encoding="utf-8")
    if channels is not None:
        write_record(target, CHANNELS_FILE, channels.to_json())
    if metrics is not None:
        write_record(target, METRICS, dict(metrics))
    safetensors.numpy.save_file(weights_of(network), target / WEIGHTS_FILE)


def give_weights(network: Any, path: str | os.PathLike[str]) -> Channels | None:
    """Gives a dense network the weights of a file, or the channels and weights of a checkpoint folder; returns what
    channels are left, None where all are.

    Raises UserError when the path cannot be read, or does not fit.
    """
    channels = _read_channels(Path(path) / CHANNELS_FILE)
    if channels is not None:
        apply_channels(network, channels)
    load_weights(network, path)
    return channels


def copy_checkpoint(source: Path, target: Path) -> None:
    """The same network with the same weights in another folder, without what was trained or measured beside them."""
    for name in ("model.yaml", CHANNELS_FILE, METRICS, WEIGHTS_FILE):
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)


def load_checkpoint(folder: str | os.PathLike[str]) -> LoadedCheckpoint:
    """Rebuilds the network of a checkpoint: dense, then with the channels that are left, then with its weights.

    Raises UserError when a file is missing or torn, or the weights do not fit.
    """
    source = Path(folder)
    model = _read(source / "model.yaml")
    if not isinstance(model, dict):
        raise UserError(f"{source / 'model.yaml'}: does not describe a network; give a checkpoint folder")
    channels = _read_channels(source / CHANNELS_FILE)
    weights = read_safetensors(source / WEIGHTS_FILE)
    network = build_network(_without_pretrained(model))
    if channels is not None:
        apply_channels(network, channels)
    _take_float_type(network, weights)
    set_weights(network, weights, source)
    return LoadedCheckpoint(network, model, channels)


def _read_channels(file: Path) -> Channels | None:
    """What is left of the channels; None where there is no such file. Raises UserError where it tells of none."""
    if not file.exists():
        return None
    try:
        return Channels.from_json(_read(file))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: does not describe channels ({error!r}); write the checkpoint again") from None


def _read(file: Path) -> Any:
    try:
        return (
            yaml.safe_load(file.read_text(encoding="utf-8"))
            if file.suffix == ".yaml"
            else json.loads(file.read_bytes())
        )
    except FileNotFoundError:
        raise UserError(f"{file}: does not exist; give a checkpoint folder") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: cannot be read ({reason}); write the checkpoint again") from None


def _without_pretrained(node: Any) -> Any:
    """The weights are in the checkpoint: nothing is fetched to be overwritten by them."""
    if isinstance(node, dict):
        return {key: None if key == "pretrained" else _without_pretrained(value) for key, value in node.items()}
    return [_without_pretrained(value) for value in node] if isinstance(node, list) else node


def _take_float_type(network: Any, weights: Mapping[str, np.ndarray]) -> None:
    floats = {str(array.dtype) for array in weights.values() if array.dtype.kind == "f"}
    if len(floats) == 1 and floats != {"float32"}:
        network.to(dtype=floats.pop())
