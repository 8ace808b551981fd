"""One ONNX file that measures any pruning: channels are switched off by inputs, so nothing is pruned or exported
again.

A mask is put before every consumer of channels (convolution, linear layer): a channel that is zero there is as good as
removed, whatever happened to it on its way. Channels that end in a product of two activations (attention) have no such
consumer; the parameters that make them are masked instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from segslim.channels.graph import ChannelGraph
from segslim.channels.identities import PINNED, Ids
from segslim.channels.walk import CONSUMES, Slot
from segslim.errors import UserError

#: The operators that a layer with consumed channels may be exported as; their second input is the weight.
CONSUMERS = ("Conv", "ConvTranspose", "MatMul", "Gemm")


@dataclass(frozen=True)
class MaskedModel:
    """file: the ONNX file; inputs: for each mask, its shape and the class of the channel at every position."""

    file: Path
    inputs: Mapping[str, tuple[tuple[int, ...], Ids]]
    classes: Mapping[str, Ids]

    def masks(self, removed: Mapping[str, NDArray[np.integer]]) -> dict[str, NDArray[np.float32]]:
        """The inputs, beside the image, that run the network without the channels `removed` of each group."""
        gone = np.concatenate(
            [np.zeros(0, np.int64), *(self.classes[group][index] for group, index in removed.items())]
        )
        return {name: np.float32(~np.isin(ids, gone)).reshape(shape) for name, (shape, ids) in self.inputs.items()}


def masked_model(source: Path, target: Path, graph: ChannelGraph) -> MaskedModel:
    """Writes to `target` the float ONNX file `source`, exported of the network of `graph`, with its masks as
    inputs.

    Initializers must bear Paddle's names of the parameters. Raises UserError when a layer that loses channels is not
    found.
    """
    model = onnx.load(source)
    inputs = _Masks(model.graph, graph).insert()
    onnx.save(model, target)
    return MaskedModel(target, inputs, {group.name: group.classes for group in graph.prunable_groups})


class _Masks:
    """The surgery on one ONNX graph."""

    def __init__(self, onnx_graph: onnx.GraphProto, graph: ChannelGraph) -> None:
        self.onnx_graph, self.graph = onnx_graph, graph
        self.initializers = {value.name for value in onnx_graph.initializer}
        self.slots: dict[str, list[Slot]] = {}
        for slot in graph.slots:
            if np.isin(slot.ids, graph.classes).any():
                self.slots.setdefault(graph.tensors[slot.parameter], []).append(slot)
        self.inputs: dict[str, tuple[tuple[int, ...], Ids]] = {}
        self.masked: dict[tuple[str, bytes], str] = {}
        self.nodes: list[onnx.NodeProto] = []

    def insert(self) -> dict[str, tuple[tuple[int, ...], Ids]]:
        found = set()
        for node in self.onnx_graph.node:
            weight = node.input[1] if len(node.input) > 1 else ""
            slot = next((slot for slot in self.slots.get(weight, []) if slot.role == CONSUMES), None)
            if slot is not None and node.op_type in CONSUMERS:
                found.add(weight)
                self._mask_input(node, slot)
        self._check_found(found)
        if len(self.graph.contracted):
            self._mask_makers()
        rest = list(self.onnx_graph.node)
        del self.onnx_graph.node[:]
        self.onnx_graph.node.extend(_sorted(self.nodes, rest))
        return self.inputs

    def _check_found(self, found: set[str]) -> None:
        for tensor, slots in self.slots.items():
            if tensor in self.initializers - found and any(slot.role == CONSUMES for slot in slots):
                raise UserError(
                    f"{slots[0].parameter} reads channels, but no layer of the ONNX file is known to use it"
                )

    def _mask_input(self, node: onnx.NodeProto, slot: Slot) -> None:
        convolution = node.op_type.startswith("Conv")
        groups = next((a.i for a in node.attribute if a.name == "group"), 1) if node.op_type == "Conv" else 1
        ids = np.tile(slot.ids, groups)
        node.input[0] = self._multiplied(node.input[0], ids, (1, -1, 1, 1) if convolution else (-1,))

    def _mask_makers(self) -> None:
        """Masks the parameters that make channels which end in a product of activations; batch norm's statistics
        may stay.
        """
        renamed = {}
        for tensor, slots in self.slots.items():
            for slot in slots:
                made = slot.role != CONSUMES and not slot.parameter.endswith(("._mean", "._variance"))
                if tensor in self.initializers and made and np.isin(slot.ids, self.graph.contracted).any():
                    rank = len(self.graph.parameter_shapes[slot.parameter])
                    ids = np.where(np.isin(slot.ids, self.graph.contracted), slot.ids, PINNED)
                    renamed[tensor] = self._multiplied(
                        tensor, ids, tuple(-1 if a == slot.axis else 1 for a in range(rank))
                    )
        for node in self.onnx_graph.node:
            for position, name in enumerate(node.input):
                if name in renamed:
                    node.input[position] = renamed[name]

    def _multiplied(self, tensor: str, ids: Ids, layout: tuple[int, ...]) -> str:
        """The tensor times a mask, one for the same tensor and ids."""
        key = (tensor, ids.tobytes())
        if key not in self.masked:
            shape = tuple(len(ids) if size == -1 else size for size in layout)
            mask, result = f"mask:{len(self.inputs)}:{tensor}", f"masked:{len(self.inputs)}:{tensor}"
            self.inputs[mask] = (shape, ids)
            self.onnx_graph.input.append(helper.make_tensor_value_info(mask, TensorProto.FLOAT, shape))
            self.nodes.append(helper.make_node("Mul", [tensor, mask], [result], name=result))
            self.masked[key] = result
        return self.masked[key]


def _sorted(added: list[onnx.NodeProto], nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Puts every added node right after the one that makes its tensor, as ONNX wants it."""
    waiting: dict[str, list[onnx.NodeProto]] = {}
    for node in added:
        waiting.setdefault(node.input[0], []).append(node)
    made = {name for node in nodes for name in node.output}
    ordered = [node for name, ready in waiting.items() if name not in made for node in ready]
    for node in nodes:
        ordered.append(node)
        ordered += [mask for name in node.output for mask in waiting.get(name, [])]
    return ordered
