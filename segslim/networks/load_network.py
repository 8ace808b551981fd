"""Rebuilds the network of this folder: needs paddlepaddle and paddleseg, and nothing else.

    from load_network import load_network

    network = load_network()          # a paddle.nn.Layer with its weights, in evaluation mode
    network.train()                   # fine-tune it as any other; save with paddle.save(network.state_dict(), ...)

The folder holds model.yaml (how PaddleSeg builds the dense network), channels.json (which of its channels are left;
absent when all are) and model.pdparams (the weights). These three are read as data, whoever wrote them: layers and
arrays are made of them, and nothing else is run. This file itself is a program: run your own copy on others' folders.
"""

import importlib
import json
import pickle
import re
import sys
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
    weights = _read_weights(Path(folder) / "model.pdparams")
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


class _Dtype:
    """In place of numpy's, of whose state only the byte order is asked for."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.code = state[1] + self.code


class _Array:
    """In place of numpy's: from its bytes."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, by_columns, content = state
        self.value = np.frombuffer(content, dtype.code).reshape(shape, order="F" if by_columns else "C")


class _Weights(pickle.Unpickler):
    """What paddle.save writes of weights. paddle.load would run whatever a file names."""

    def find_class(self, module: str, name: str) -> Any:
        admitted: Any = {
            "numpy": {"_reconstruct": _Array, "ndarray": _Array, "dtype": _Dtype},
            "collections": {"OrderedDict": dict},
            "builtins": {"tuple": tuple},
            "__builtin__": {"tuple": tuple, "bytes": lambda: b""},
            "_codecs": {"encode": lambda text, _: text.encode("latin1")},  # bytes, by the older protocols
        }.get(module.partition(".")[0], {})
        if name in admitted:
            return admitted[name]
        raise pickle.UnpicklingError(f"names {module}.{name}, which no file of weights needs: do not trust it")


def _read_weights(file: Path) -> dict[str, np.ndarray]:
    with file.open("rb") as stream:
        content = _Weights(stream).load()
    # paddle.save of a tensor is (name of the parameter, array); a table of such names is no weight
    arrays = {name: value[1] if isinstance(value, tuple) else value for name, value in content.items()}
    return {name: array.value for name, array in arrays.items() if isinstance(array, _Array)}


def _instantiate(node: Any) -> Any:
    """Builds {_target_: package.Class, argument: value, ...}, inside out; weights are in model.pdparams already."""
    if isinstance(node, list):
        return [_instantiate(child) for child in node]
    if not isinstance(node, dict):
        return node
    values = {key: None if key == "pretrained" else _instantiate(value) for key, value in node.items()}
    if "_target_" not in node:
        return values
    return _layer_class(str(values.pop("_target_")), values)(**values)


def _layer_class(target: str, arguments: dict[str, Any]) -> Any:
    """The class of a layer, or a function that makes one of PaddleSeg's, called `target`."""
    module, _, name = target.rpartition(".")
    found = None if module.partition(".")[0] in sys.stdlib_module_names else importlib.import_module(module)
    found = getattr(found, name, None)
    of_paddleseg = str(getattr(found, "__module__", "")).startswith("paddleseg.models")
    if not of_paddleseg and not (isinstance(found, type) and issubclass(found, paddle.nn.Layer)):
        raise ValueError(f"model.yaml: {target} is no paddle.nn.Layer: do not trust this folder")
    for value in arguments.values() if of_paddleseg else ():  # PaddleSeg evaluates some of them
        if isinstance(value, str) and not re.fullmatch(r"[\w.-]*", value):
            raise ValueError(f"model.yaml: {target} is given {value!r}, which is no name: do not trust this folder")
    return found


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
