"""How much mIoU a network loses when one group alone loses some of its channels, measured on one ONNX file.

The file has its masks as inputs, so nothing is pruned or exported again. A mask is put before every consumer of
channels (convolution, linear layer): a channel that is zero there is as good as removed, whatever happened to it on its
way. Channels that end in a product of two activations (attention) have no such consumer; the parameters that make them
are masked instead.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from segslim.channels.graph import ChannelGraph
from segslim.channels.walk import CONSUMES, PINNED, Ids, Slot
from segslim.errors import UserError
from segslim.files import read_plain
from segslim.onnx_tools import insert_nodes

#: From the channels removed of each group, in one pruning, to the mIoU of the network without them: first over all
#: images, then with each image left out.
Evaluate = Callable[[dict[str, NDArray[np.integer]]], NDArray[np.float64]]
#: For each group, a number by the share of its channels removed.
Curves = Mapping[str, Mapping[float, float]]


@dataclass(frozen=True)
class Sensitivity:
    """baseline: the mIoU of the unpruned network; losses: the absolute loss of mIoU (negative where it rose); errors:
    the standard error of each loss, since there are only so many images.
    """

    baseline: float
    losses: Curves
    errors: Curves = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        (folder / "sensitivity.json").write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Sensitivity":
        value = read_plain(folder / "sensitivity.json")
        losses, errors = (
            {group: {float(share): number for share, number in curve.items()} for group, curve in value[name].items()}
            for name in ("losses", "errors")
        )
        return cls(value["baseline"], losses, errors)


@dataclass(frozen=True)
class Trial:
    """One pruning to evaluate: a group without a share of its channels, those of the least scores."""

    group: str
    share: float
    removed: dict[str, NDArray[np.integer]]


def trials(graph: ChannelGraph, importance: Mapping[str, NDArray[np.floating]], ratios: Sequence[float]) -> list[Trial]:
    """One trial for every scored group and ratio. Ratios that round to the same number of channels are one trial; at
    least one channel is removed, and one stays.
    """
    planned = []
    for group in (group for group in graph.prunable_groups if group.name in importance):
        order = np.argsort(importance[group.name], kind="stable")
        counts = sorted({min(round(group.size * ratio), group.size - 1) for ratio in ratios} - {0})
        planned += [Trial(group.name, count / group.size, {group.name: np.sort(order[:count])}) for count in counts]
    return planned


def measure(
    graph: ChannelGraph,
    importance: Mapping[str, NDArray[np.floating]],
    ratios: Sequence[float],
    evaluate: Evaluate,
    progress: Callable[[int, int], Any] = lambda done, total: None,
    workers: int = 1,
) -> Sensitivity:
    """Evaluates the network unpruned and for every trial.

    Args:
        graph: of the network.
        importance: the scores of each group's channels; the least are removed first.
        ratios: shares of a group's channels to remove.
        evaluate: the mIoUs without some channels, by a masked run (`MaskedModel.masks` turns them into inputs).
        progress: called with (done, total).
        workers: threads that evaluate at the same time.
    """
    planned = trials(graph, importance, ratios)
    unpruned = evaluate({})
    losses: dict[str, dict[float, float]] = {}
    errors: dict[str, dict[float, float]] = {}
    with ThreadPoolExecutor(workers) as pool:
        pruned = pool.map(evaluate, [trial.removed for trial in planned])
        for done, (trial, mious) in enumerate(zip(planned, pruned, strict=True), start=1):
            loss = unpruned - mious
            losses.setdefault(trial.group, {})[trial.share] = float(loss[0])
            errors.setdefault(trial.group, {})[trial.share] = _jackknife(loss[1:])
            progress(done, len(planned))
    return Sensitivity(float(unpruned[0]), losses, errors)


def _jackknife(left_out: NDArray[np.float64]) -> float:
    """The standard error of a statistic of n images from its values with each of them left out (Efron, 1982)."""
    defined = left_out[~np.isnan(left_out)]  # without the only labelled image there is no mIoU
    return float(np.sqrt((len(defined) - 1) * defined.var())) if len(defined) > 1 else 0.0


@dataclass(frozen=True)
class MaskedModel:
    """file: the ONNX file; inputs: for each mask, its shape and the class of the channel at every position."""

    file: Path
    inputs: Mapping[str, tuple[tuple[int, ...], Ids]]
    classes: Mapping[str, Ids]

    def masks(self, removed: Mapping[str, NDArray[np.integer]]) -> dict[str, NDArray[np.float32]]:
        """The inputs, beside the image, that run the network without the channels `removed` of each group."""
        classes = [self.classes[group][index] for group, index in removed.items()]
        gone = np.concatenate([np.zeros(0, np.int64), *classes])
        return {name: np.float32(~np.isin(ids, gone)).reshape(shape) for name, (shape, ids) in self.inputs.items()}


def masked_model(source: Path, target: Path, graph: ChannelGraph) -> MaskedModel:
    """Writes to `target` the float ONNX file `source`, exported from the network of `graph`, with masks as further
    inputs.

    Initializers must have Paddle's names of the parameters. Raises UserError when a layer that loses channels is not
    found.
    """
    model = onnx.load(source)
    masks = _Masks(model.graph, graph)
    masks.insert()
    onnx.save(model, target)
    return MaskedModel(target, masks.inputs, {group.name: group.classes for group in graph.prunable_groups})


#: The operators that a layer with consumed channels may be exported as; their second input is the weight.
CONSUMERS = ("Conv", "ConvTranspose", "MatMul", "Gemm")


class _Masks:
    """The masks of one ONNX graph, which `insert` changes in place."""

    def __init__(self, onnx_graph: onnx.GraphProto, graph: ChannelGraph) -> None:
        self.onnx_graph, self.graph = onnx_graph, graph
        self.initializers = {value.name for value in onnx_graph.initializer}
        self.slots: dict[str, list[Slot]] = {}  # of prunable channels, by tensor
        for slot in graph.slots:
            if np.isin(slot.ids, graph.classes).any():
                self.slots.setdefault(graph.tensors[slot.parameter], []).append(slot)
        self.inputs: dict[str, tuple[tuple[int, ...], Ids]] = {}
        self.masked: dict[tuple[str, bytes], str] = {}
        self.products: dict[str, list[onnx.NodeProto]] = {}  # by the tensor that is masked

    def insert(self) -> None:
        consumers = set()
        for node in self.onnx_graph.node:
            weight = node.input[1] if len(node.input) > 1 else ""
            slot = next((slot for slot in self.slots.get(weight, []) if slot.role == CONSUMES), None)
            if slot is not None and node.op_type in CONSUMERS:
                consumers.add(weight)
                groups = next((a.i for a in node.attribute if a.name == "group"), 1) if node.op_type == "Conv" else 1
                ids = np.tile(slot.ids, groups)  # a grouped convolution's weight has the inputs of one group
                layout = (1, -1, 1, 1) if node.op_type.startswith("Conv") else (-1,)
                node.input[0] = self._multiplied(node.input[0], ids, layout)
        for tensor, slots in self.slots.items():
            if tensor in self.initializers - consumers and any(slot.role == CONSUMES for slot in slots):
                raise UserError(
                    f"{slots[0].parameter} reads channels, but no layer of the ONNX file is known to use it"
                )
        if len(self.graph.contracted):
            self._mask_makers()
        insert_nodes(self.onnx_graph, self.products)

    def _mask_makers(self) -> None:
        """Masks the parameters that make channels which end in a product of activations."""
        renamed = {}
        for tensor, slots in self.slots.items():
            for slot in slots:
                # batch norm's statistics may stay, since its scale and bias are zeroed
                makes = slot.role != CONSUMES and not slot.parameter.endswith(("._mean", "._variance"))
                if tensor in self.initializers and makes and np.isin(slot.ids, self.graph.contracted).any():
                    rank = len(self.graph.parameter_shapes[slot.parameter])
                    ids = np.where(np.isin(slot.ids, self.graph.contracted), slot.ids, PINNED)
                    layout = tuple(-1 if axis == slot.axis else 1 for axis in range(rank))
                    renamed[tensor] = self._multiplied(tensor, ids, layout)
        for node in self.onnx_graph.node:
            for position, name in enumerate(node.input):
                if name in renamed:
                    node.input[position] = renamed[name]

    def _multiplied(self, tensor: str, ids: Ids, layout: tuple[int, ...]) -> str:
        """The tensor times a mask; one product for the same tensor and ids."""
        key = (tensor, ids.tobytes())
        if key not in self.masked:
            shape = tuple(len(ids) if size == -1 else size for size in layout)
            mask, result = f"mask:{len(self.inputs)}:{tensor}", f"masked:{len(self.inputs)}:{tensor}"
            self.inputs[mask] = (shape, ids)
            self.onnx_graph.input.append(helper.make_tensor_value_info(mask, TensorProto.FLOAT, shape))
            product = helper.make_node("Mul", [tensor, mask], [result], name=result)
            self.products.setdefault(tensor, []).append(product)
            self.masked[key] = result
        return self.masked[key]
