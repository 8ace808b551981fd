"""A network at one point of its compression, as a value: a stage makes a new Checkpoint from the one that it is given.

model.yaml            how to build the network: its `_target_` node
channels.json         which channels are left; absent when all are
graph.onnx            where no code makes the network: the graph, without its weights
weights.safetensors   parameters and running statistics, by their names in the state dict
quantization.yaml     how it is quantized, and weight_scales.safetensors; absent when it is float
measured.json         what was measured on the way: training, channels before and after, signal-to-noise of layers
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import safetensors.numpy
import yaml
from onnx import ModelProto

from segslim.channels import ChannelGraph, Channels, apply_channels, prune
from segslim.channels.graph import Kept
from segslim.errors import UserError
from segslim.exported import ExportedNetwork, with_weights
from segslim.files import read_plain
from segslim.networks.network import build_network, image_channels, set_weights, weights_of
from segslim.networks.weight_files import WEIGHTS_FILE, read_safetensors, read_weights, write_pdparams
from segslim.quantization.spec import QuantizationSpec

MODEL, CHANNELS, WEIGHTS, MEASURED = "model.yaml", "channels.json", "weights.safetensors", "measured.json"
GRAPH = "graph.onnx"


@dataclass(frozen=True)
class Checkpoint:
    """A network: what it is built from, what is left of it, its weights, its precision, and what was measured.

    Never changed: `with_weights`, `pruned` and `quantized` give a new one that carries everything else along, or raise
    UserError where that would be wrong.
    """

    model: Mapping[str, Any]
    weights: Mapping[str, np.ndarray]
    channels: Channels | None = None
    quantization: QuantizationSpec | None = None
    measured: Mapping[str, Any] = field(default_factory=dict)
    graph: bytes | None = None  # of an exported network, as it is now

    kind: ClassVar[str] = "checkpoint"

    @staticmethod
    def of_network(network: Any, model: Mapping[str, Any], **measured: Any) -> "Checkpoint":
        """Of a dense network and the `_target_` node that it was built from."""
        return Checkpoint(dict(model), weights_of(network), measured=measured, graph=_graph_of(network))

    @staticmethod
    def of_file(path: str | os.PathLike[str], model: Mapping[str, Any], seed: int) -> "Checkpoint":
        """The weights of a file (.pdparams, .safetensors), or the weights, channels and precision of a checkpoint
        folder, for the network that `model` describes.

        Raises UserError when the path cannot be read, does not fit or holds values that are not finite.
        """
        folder = Path(path)
        channels = _read_channels(folder / CHANNELS)
        network = build_network(without_pretrained(model), seed=seed)
        if channels is not None:
            apply_channels(network, channels)
        weights = read_weights(folder)
        set_weights(network, weights, path)
        broken = [name for name, array in weights.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
        if broken:
            raise UserError(f"{path}: {broken[0]} holds values that are not finite; give weights that can be used")
        quantization = QuantizationSpec.load(folder) if folder.is_dir() else None
        return Checkpoint(dict(model), weights_of(network), channels, quantization)

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> "Checkpoint":
        """Reads a checkpoint folder. Raises UserError when a file is missing or torn."""
        source = Path(folder)
        model = _read(source / MODEL)
        if not isinstance(model, dict):
            raise UserError(f"{source / MODEL}: does not describe a network; give a checkpoint folder")
        return Checkpoint(
            model,
            read_safetensors(source / WEIGHTS),
            _read_channels(source / CHANNELS),
            QuantizationSpec.load(source),
            Checkpoint.measured_in(source),
            (source / GRAPH).read_bytes() if (source / GRAPH).is_file() else None,
        )

    @staticmethod
    def measured_in(folder: str | os.PathLike[str]) -> dict[str, Any]:
        """What a checkpoint folder tells of measurements, without reading its weights; {} where it tells nothing."""
        file = Path(folder) / MEASURED
        return dict(_read(file)) if file.exists() else {}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the checkpoint into a folder, which is made where there is none."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        (target / MODEL).write_text(yaml.safe_dump(dict(self.model), sort_keys=False), encoding="utf-8")
        for name, content in ((CHANNELS, self.channels and self.channels.to_json()), (MEASURED, self.measured)):
            if content:
                text = json.dumps(content, indent=1, ensure_ascii=False)
                (target / name).write_text(f"{text}\n", encoding="utf-8")
        safetensors.numpy.save_file(
            {name: np.ascontiguousarray(w) for name, w in self.weights.items()}, target / WEIGHTS
        )
        if self.quantization is not None:
            self.quantization.save(target)
        if self.graph is not None:
            (target / GRAPH).write_bytes(self.graph)

    def network(self) -> Any:
        """A new paddle.nn.Layer, or ExportedNetwork, with these channels and weights.

        Raises UserError when the weights do not fit.
        """
        if self.graph is not None:
            options = {key: value for key, value in self.model.items() if key not in ("_target_", "file")}
            return ExportedNetwork(with_weights(ModelProto.FromString(self.graph), self.weights), **options)
        network = build_network(without_pretrained(self.model))
        if self.channels is not None:
            apply_channels(network, self.channels)
        floats = {str(array.dtype) for array in self.weights.values() if array.dtype.kind == "f"}
        if len(floats) == 1 and floats != {"float32"}:
            network.to(dtype=floats.pop())
        set_weights(network, self.weights, "the checkpoint")
        return network

    def channel_graph(self, size: tuple[int, int], rules: Mapping[str, Any] | None = None) -> ChannelGraph:
        """The graph of its channels, traced at `size` (width, height); `rules` are operator rules beside ours."""
        network = self.network()
        return ChannelGraph.trace(network, (1, image_channels(network), size[1], size[0]), rules or {})

    def with_weights(self, network: Any, **measured: Any) -> "Checkpoint":
        """With the weights of `network`, a layer as `network()` gives it or a mapping; the precision is kept."""
        weights = dict(network) if isinstance(network, Mapping) else weights_of(network)
        return replace(self, weights=weights, measured={**self.measured, **measured})

    def pruned(self, graph: ChannelGraph, kept: Kept, **measured: Any) -> "Checkpoint":
        """With only those channels of each group of `graph` that are in `kept`, {group: indices}.

        Raises UserError where it is quantized: the ranges were measured with all channels.
        """
        if self.quantization is not None and self.quantization.is_int8:
            raise UserError(PRUNED_AFTER_QUANTIZE)
        network = self.network()
        channels = prune(network, graph, kept, self.channels)
        return replace(
            self,
            weights=weights_of(network),
            channels=channels,
            measured={**self.measured, **measured},
            graph=_graph_of(network),
        )

    def quantized(self, quantization: QuantizationSpec, **measured: Any) -> "Checkpoint":
        """With this precision in place of the one that it had."""
        return replace(self, quantization=quantization, measured={**self.measured, **measured})


def _graph_of(network: Any) -> bytes | None:
    return network.without_weights().SerializeToString() if isinstance(network, ExportedNetwork) else None


PRUNED_AFTER_QUANTIZE = (
    "compress.stages: prune would invalidate the ranges that quantize has measured: put quantize after it"
)


def without_pretrained(node: Any) -> Any:
    """A `_target_` node that fetches no weights: those of the checkpoint would overwrite them."""
    if isinstance(node, Mapping):
        return {key: None if key == "pretrained" else without_pretrained(value) for key, value in node.items()}
    return [without_pretrained(value) for value in node] if isinstance(node, list) else node


def _read_channels(file: Path) -> Channels | None:
    if not file.exists():
        return None
    try:
        return Channels.from_json(_read(file))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: does not describe channels ({error!r}); write the checkpoint again") from None


def _read(file: Path) -> Any:
    try:
        return read_plain(file)
    except FileNotFoundError:
        raise UserError(f"{file}: does not exist; give a checkpoint folder") from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: cannot be read ({reason}); write the checkpoint again") from None


def write_standalone(checkpoint: str | os.PathLike[str], folder: str | os.PathLike[str]) -> list[str]:
    """Writes model.pdparams, model.yaml, channels.json (where channels were taken out) and load_network.py.

    Needs no Paddle. Returns the names of the files. Raises UserError when `checkpoint` is no checkpoint folder, or
    `folder` cannot be written.
    """
    given, target = Checkpoint.load(checkpoint), Path(folder)
    program = Path(__file__).with_name("load_network.py")
    try:
        replace(given, quantization=None, measured={}).save(target)  # Paddle alone has no use for them
        (target / WEIGHTS_FILE).unlink()
        write_pdparams(target / "model.pdparams", given.weights)
        shutil.copyfile(program, target / program.name)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); give another folder") from None
    return sorted(file.name for file in target.iterdir())
