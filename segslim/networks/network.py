"""A network: built from its `_target_` node, its weights taken from it, and given to it, never half."""

import logging
import os
import re
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from segslim.errors import UserError
from segslim.exported import ExportedNetwork
from segslim.networks.weight_files import read_weights
from segslim.paddle_compat import evaluation_mode, import_paddle, import_paddleseg, patched, with_auxiliary_heads
from segslim.plugins import instantiate, located

_log = logging.getLogger(__name__)
_OTHER_SIZE = "its output is of"  # as one's own network may have, which is no fault
EXPORTED = "segslim.exported.ExportedNetwork"
_NAMED = 5  # so many of the weights that do not fit are named in an error, the others counted


def is_exported(model: Mapping[str, Any]) -> bool:
    """Whether a `_target_` node describes an ONNX graph, which nothing trains, in place of a paddle.nn.Layer."""
    return bool(model.get("_target_") == EXPORTED)


def require_code(model: Mapping[str, Any], need: str) -> None:
    """Raises UserError where no code makes the network; `need` says what for, and what to give instead."""
    if is_exported(model):
        raise UserError(f"model=exported: {need}")


def build_network(model: Mapping[str, Any], seed: int | None = None) -> Any:
    """Builds the paddle.nn.Layer that `model` describes, with weights drawn from `seed`; or an ExportedNetwork.

    `model` is a `_target_` node: {"_target_": "paddleseg.models.FCN", "num_classes": 2, "backbone": {"_target_": ...}}.
    Names of parameters are counted from 0 for each network: they do not depend on what else this process has built.

    Raises UserError naming the key, target and argument that do not fit.
    """
    if is_exported(model):
        return instantiate(model, "model.network")
    paddle = import_paddle()
    import_paddleseg()
    if "_target_" not in model:
        raise UserError(
            "model.network._target_ has no value: give the class of the network, as in paddleseg.models.FastSCNN"
        )
    if seed is not None:
        paddle.seed(seed)
    with paddle.utils.unique_name.guard(), weights_read_as_data():
        network = instantiate(model, "model.network")
    if not isinstance(network, paddle.nn.Layer):
        raise UserError(
            f"model.network._target_={model['_target_']}: makes a {type(network).__name__}, not a paddle.nn.Layer"
        )
    _unsynchronize(network)
    network.image_channels = image_channels(model)
    return network


def check_makes_layers(node: Any, where: str) -> None:
    """Raises UserError where a `_target_` node, which may be anybody's, names what is neither a paddle.nn.Layer nor of
    PaddleSeg's models: it would be run. `where` is named in the error.
    """
    for child in node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ():
        check_makes_layers(child, where)
    if not isinstance(node, Mapping) or "_target_" not in node:
        return
    import_paddleseg()
    target = str(node["_target_"])
    found = None if target.partition(".")[0] in sys.stdlib_module_names else located(target, where)
    of_paddleseg = str(getattr(found, "__module__", "")).startswith("paddleseg.models")
    is_layer = isinstance(found, type) and issubclass(found, import_paddle().nn.Layer)
    if not (of_paddleseg or is_layer):
        raise UserError(
            f"{where}: names {target}, which is no paddle.nn.Layer; it was not run. Do not trust this folder"
        )
    for name, value in node.items():  # PaddleSeg evaluates some of them
        if of_paddleseg and isinstance(value, str) and name != "pretrained" and not re.fullmatch(r"[\w.-]*", value):
            raise UserError(f"{where}: {name}={value!r} is no name; it was not run. Do not trust this folder")


@contextmanager
def weights_read_as_data() -> Iterator[None]:
    """Within it `paddle.load` reads weights alone and runs nothing: PaddleSeg's networks give it their `pretrained`.

    What is around a network's and a loss's making. An archive that PaddleSeg downloads unpacks into its folder only.
    """
    paddle = import_paddle()

    def load(path: str | os.PathLike[str], **_: Any) -> dict[str, Any]:
        return {name: paddle.to_tensor(array) for name, array in read_weights(Path(path)).items()}

    utils = import_paddleseg().utils.utils
    without_weights = utils.load_pretrained_model

    def load_pretrained_model(layer: Any, file: str | None) -> None:
        if file is None:
            without_weights(layer, file)  # says so
        else:
            load_fitting(layer, file)

    with ExitStack() as patches:
        for module in (paddle, paddle.framework, paddle.framework.io):
            patches.enter_context(patched(module, "load", load))
        patches.enter_context(patched(utils, "load_pretrained_model", load_pretrained_model))
        if hasattr(tarfile, "data_filter"):
            patches.enter_context(patched(tarfile.TarFile, "extraction_filter", staticmethod(tarfile.data_filter)))
        yield


def _unsynchronize(network: Any) -> None:
    """Makes every SyncBatchNorm a BatchNorm2D of the same parameters: Paddle's has no kernel for the CPU (ViTAdapter).

    Where several GPUs train, training puts it back.
    """
    nn = import_paddle().nn
    for layer in network.sublayers(include_self=True):
        for name, child in layer.named_children():
            if type(child) is nn.SyncBatchNorm:
                plain = nn.BatchNorm2D(child._num_features, child._momentum, child._epsilon)
                plain._parameters.update(child._parameters)
                plain._buffers.update(child._buffers)
                setattr(layer, name, plain)


def image_channels(model: Any) -> int:
    """Of the images that a network takes, as its `_target_` node or `build_network`'s Layer tells."""
    if not isinstance(model, Mapping):
        return int(getattr(model, "image_channels", 3))
    if is_exported(model):
        return int(build_network(model).image_channels)
    return (
        image_channels(model["backbone"]) if isinstance(model.get("backbone"), Mapping) else model.get("in_channels", 3)
    )


def with_image_channels(model: Mapping[str, Any], channels: int) -> dict[str, Any]:
    """The node of the same network for images of so many channels: PaddleSeg's classes take `in_channels`, those with a
    backbone by that. What stands there already is kept; an exported graph takes what it takes.
    """
    if is_exported(model):
        return dict(model)
    if isinstance(model.get("backbone"), Mapping):
        return {**model, "backbone": with_image_channels(model["backbone"], channels)}
    return dict(model) if channels == 3 else {"in_channels": channels, **model}


def check_runs(network: Any, size: tuple[int, int]) -> None:
    """Raises UserError where the network does not take images of `size` (width, height), in training or as deployed.

    Its weights and statistics are left as they were.
    """
    if isinstance(network, ExportedNetwork):
        network.check_size(size)
        return
    failed = _failure(network, size)
    if failed is None:
        return
    name, (width, height) = type(network).__name__, size
    rounded = (-(-width // 32) * 32, -(-height // 32) * 32)
    if rounded != size and _failure(network, rounded) is None:
        raise UserError(
            f"dataset.size=[{width},{height}]: {name} does not take this size ({failed}); give multiples of 32, as in"
            f" dataset.size=[{rounded[0]},{rounded[1]}]"
        )
    if not failed.startswith(_OTHER_SIZE):
        channels = image_channels(network)
        raise UserError(
            f"model.network: {name} does not run on images of {width} x {height} pixels and {channels} channels,"
            f" dataset.size and dataset.channels ({failed})"
        )


def _failure(network: Any, size: tuple[int, int]) -> str | None:
    """Why one image of zeros does not become logits of its size, with auxiliary heads and as deployed."""
    paddle = import_paddle()
    width, height = size
    image, before = paddle.zeros([1, image_channels(network), height, width]), weights_of(network)
    try:
        for in_mode in (with_auxiliary_heads, evaluation_mode):
            with paddle.no_grad(), in_mode(network):
                # some give what is no map in training (MaskFormer): its loss takes it
                shapes = [tuple(output.shape) for output in network(image)[:1] if isinstance(output, paddle.Tensor)]
    except UserError:
        raise
    except Exception as error:  # whatever Paddle's operators raise
        return " ".join(str(error).split()).partition(". ")[0].removeprefix("(InvalidArgument) ")[:160]
    finally:
        for name, tensor in network.state_dict().items():
            tensor.set_value(before[name])
    wrong = [shape for shape in shapes if shape[2:] != (height, width)]
    return f"{_OTHER_SIZE} {wrong[0][-1]} x {wrong[0][-2]}" if wrong else None


def weights_of(network: Any) -> dict[str, np.ndarray]:
    """Copies of the parameters and the running statistics, by their names in the state dict."""
    return {name: np.array(tensor, order="C") for name, tensor in network.state_dict().items()}


def tensor_names(network: Any) -> dict[str, str]:
    """{name in the state dict: name of the initializer in the exported graph}."""
    return {name: getattr(tensor, "name", name) for name, tensor in network.state_dict().items()}


def set_weights(network: Any, weights: Mapping[str, np.ndarray], origin: str | os.PathLike[str]) -> None:
    """Sets all parameters and running statistics in place, cast to the network's types; `origin` is named in errors.

    Raises UserError when a name or a shape does not fit; the network is then as it was.
    """
    tensors = network.state_dict()
    faults = _faults({name: tuple(tensor.shape) for name, tensor in tensors.items()}, weights)
    if faults:
        more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        raise UserError(
            f"{origin}: does not fit the network in {len(faults)} weights: {'; '.join(faults[:_NAMED])}{more}."
            f" {_remedy(tensors, weights)}"
        )
    if isinstance(network, ExportedNetwork):
        network.set_weights(weights)
        return
    for name, tensor in tensors.items():
        tensor.set_value(cast_weights(weights[name], str(tensor.dtype).rpartition(".")[2]))


def _remedy(tensors: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> str:
    """What to do with weights that do not fit; a backbone's are distinguished from those of another network."""
    for part in dict.fromkeys(name.partition(".")[0] for name in tensors):
        if sum(f"{part}.{name}" in tensors for name in weights) > len(weights) / 2:
            return f"They are of its {part}: give them by model.network.{part}.pretrained=FILE"
    if tensors.keys() == weights.keys():
        return "Is it of this num_classes? train.ignore_mismatched_heads=true trains on from all that fits"
    return "Is it of this model, with this num_classes?"


def _faults(shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, np.ndarray]) -> list[str]:
    wrong = [
        f"{name} is {_by(weights[name].shape)}, the network's is {_by(shape)}"
        for name, shape in shapes.items()
        if name in weights and weights[name].shape != shape
    ]
    missing = [f"{name} is missing" for name in shapes if name not in weights]
    unknown = [f"{name} is not in the network" for name in weights if name not in shapes]
    return wrong + missing + unknown


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def cast_weights(array: np.ndarray, dtype: str) -> np.ndarray:
    """An array of a file of weights in a tensor's type ("float32")."""
    if array.dtype == np.uint16 and dtype.startswith("float"):  # how Paddle saves bfloat16
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(dtype, copy=False)


def load_fitting(layer: Any, file: str | Path) -> tuple[int, int]:
    """Sets those parameters and running statistics of a layer that the file, or checkpoint folder, holds in their shape
    (a vision transformer's positions are resized), and returns how many these are, of how many.

    The others are counted in a warning and named in the log. Raises UserError where nothing fits.
    """
    weights, tensors = read_weights(Path(file)), layer.state_dict()
    left = []
    for name, tensor in tensors.items():
        given, shape = weights.get(name), tuple(tensor.shape)
        if given is not None and given.shape != shape and name == "pos_embed" and hasattr(layer, "resize_pos_embed"):
            given = _resized_positions(layer, given)
        if given is None or given.shape != shape:
            left.append(name)
            found = "not in the file" if given is None else f"{list(given.shape)} in the file, {list(shape)} here"
            _log.info("%s: %s of %s is %s", file, name, type(layer).__name__, found)
        else:
            tensor.set_value(cast_weights(given, str(tensor.dtype).rpartition(".")[2]))
    if len(left) == len(tensors):
        raise UserError(f"{file}: none of its weights fits {type(layer).__name__}; give weights of that one")
    if left:
        _log.warning(
            "%s: %d of the %d weights of %s fit; the other %d start at random, as run.log names them",
            *(file, len(tensors) - len(left), len(tensors), type(layer).__name__, len(left)),
        )
    return len(tensors) - len(left), len(tensors)


def _resized_positions(layer: Any, given: Any) -> Any:
    side = round((given.shape[1] - 1) ** 0.5)
    positions = import_paddle().to_tensor(given.astype("float32"))
    return layer.resize_pos_embed(positions, (side, side), (layer.pos_h, layer.pos_w)).numpy()
