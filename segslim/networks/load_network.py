"""Rebuilds the network of this folder: needs paddlepaddle and paddleseg, and nothing else.

    from load_network import load_network

    network = load_network()          # a paddle.nn.Layer with its weights, in evaluation mode
    network.train()                   # fine-tune it as any other; save with paddle.save(network.state_dict(), ...)

The folder holds model.yaml (how PaddleSeg builds the dense network), channels.json (which of its channels are left;
absent when all are) and model.pdparams (the weights).
"""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddleseg.models  # noqa: F401  (registers what model.yaml names)
import yaml

HERE = Path(__file__).parent


def load_network(folder: str | Path = HERE) -> Any:
    """The network of a folder as above, with the weights of its model.pdparams."""
    network = build_network(folder)
    weights = paddle.load(str(Path(folder) / "model.pdparams"))
    missing, unexpected = network.set_state_dict(weights)
    if missing or unexpected:
        raise ValueError(f"{folder}: model.pdparams does not fit model.yaml and channels.json: {missing + unexpected}")
    network.eval()
    return network


def build_network(folder: str | Path = HERE) -> Any:
    """The same without the weights, for those that you have trained on."""
    with paddle.utils.unique_name.guard():
        network = _instantiate(yaml.safe_load((Path(folder) / "model.yaml").read_text(encoding="utf-8")))
    channels = Path(folder) / "channels.json"
    if channels.exists():
        _take_out(network, json.loads(channels.read_text(encoding="utf-8")))
    return network


def _instantiate(node: Any) -> Any:
    """Builds {_target_: package.Class, argument: value, ...}, inside out; weights are in model.pdparams already."""
    if isinstance(node, list):
        return [_instantiate(child) for child in node]
    if not isinstance(node, dict):
        return node
    values = {key: None if key == "pretrained" else _instantiate(value) for key, value in node.items()}
    if "_target_" not in node:
        return values
    module, _, name = str(values.pop("_target_")).rpartition(".")
    return getattr(importlib.import_module(module), name)(**values)


def _take_out(network: Any, channels: dict[str, Any]) -> None:
    """Leaves each parameter the indices that `channels` keeps of each axis, and gives layers their new sizes."""
    done = set()
    state = network.state_dict()
    for name, axes in channels["kept"].items():
        if id(state[name]) in done:  # a parameter that two layers share
            continue
        done.add(id(state[name]))
        value = state[name].numpy()
        for axis, indices in axes.items():
            value = value.take(indices, int(axis))
        place = paddle.CPUPlace() if state[name].place.is_cpu_place() else state[name].place
        state[name].value().get_tensor().set(np.ascontiguousarray(value), place)
    layers = dict(network.named_sublayers(include_self=True))
    for path, groups in channels["groups"].items():
        layers[path]._groups = groups
    for path, sizes in channels["sizes"].items():
        for attribute, size in sizes.items():
            setattr(layers[path], attribute, size)
