"""Layers of an ONNX graph as linear maps of patches, and the activations that they read.

A convolution, transposed convolution or linear layer is y = W x + b, where x is the patch of input values that one
output position reads. What reconstruction and Optimal Brain Compression need of a layer is in the sums of x xᵀ (the
Gram matrix), of y xᵀ and of x over some thousand positions. No Paddle here, and no engine but ONNX Runtime.
"""

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from segslim.errors import UserError
from segslim.onnx_tools import attribute, session_of

Array = NDArray[np.floating]

#: More bytes of activations than this are kept in temporary files instead of memory.
MEMORY = 2 << 30
#: The most inputs of a layer whose Gram matrix is taken in one: 134 MB in float64.
LARGEST_GRAM = 4096


@dataclass(frozen=True)
class Layer:
    """One Conv, ConvTranspose, MatMul or Gemm with a constant weight.

    weight: the initializer's name; bias: the name of the initializer that its outputs are shifted by, if any; norm:
    where there is no bias, the running mean of the batch norm that alone reads the output, if any; groups: of channels
    that do not mix, each with a matrix of its own.
    """

    node: NodeProto
    weight: str
    shape: tuple[int, ...]
    bias: str | None = None
    norm: str | None = None
    groups: int = 1

    @property
    def output_axis(self) -> int:
        """The axis of the weight that counts output channels; of a grouped ConvTranspose, of each group's."""
        if self.node.op_type == "Conv":
            return 0
        transposed = self.node.op_type == "Gemm" and attribute(self.node, "transB", 0)
        return 0 if transposed else 1

    @property
    def inputs(self) -> int:
        """Values that one output reads: the columns of `matrix`."""
        shape = self.shape
        if self.node.op_type == "Conv":
            return int(np.prod(shape[1:]))
        if self.node.op_type == "ConvTranspose":
            return int(shape[0] // self.groups * np.prod(shape[2:]))
        return shape[1 - self.output_axis]

    @property
    def outputs(self) -> int:
        """Outputs of each group: the rows of `matrix`."""
        count = self.shape[self.output_axis]
        return count // self.groups if self.node.op_type == "Conv" else count

    @property
    def kernel(self) -> int:
        """Positions of each input channel in a patch."""
        return int(np.prod(self.shape[2:])) if self.node.op_type.startswith("Conv") else 1

    def matrix(self, weight: Array) -> Array:
        """The weight as groups, outputs, inputs; inputs are ordered by channel, then by position in the kernel."""
        kind = self.node.op_type
        if kind == "Conv":
            return weight.reshape(self.groups, weight.shape[0] // self.groups, -1)
        if kind == "ConvTranspose":  # a convolution of the input with zeros between, by the flipped kernel
            channels, outputs, *size = weight.shape
            grouped = weight[:, :, ::-1, ::-1].reshape(self.groups, channels // self.groups, outputs, *size)
            return grouped.swapaxes(1, 2).reshape(self.groups, outputs, -1)
        return (weight if self.output_axis == 0 else weight.T)[None]

    def weight_of(self, matrix: Array) -> Array:
        """The inverse of `matrix`."""
        kind = self.node.op_type
        if kind == "Conv":
            return matrix.reshape(self.shape)
        if kind == "ConvTranspose":
            channels, outputs, *size = self.shape
            grouped = matrix.reshape(self.groups, outputs, channels // self.groups, *size).swapaxes(1, 2)
            return grouped.reshape(self.shape)[:, :, ::-1, ::-1]
        return matrix[0] if self.output_axis == 0 else matrix[0].T

    def positions(self, output: Array, wanted: int, random: np.random.Generator) -> NDArray[np.int64]:
        """Up to `wanted` positions of an output, drawn without replacement, in rising order."""
        count = output[0, 0].size if self.node.op_type.startswith("Conv") else output[..., 0].size
        if count <= wanted:
            return np.arange(count)
        return np.sort(random.choice(count, wanted, replace=False))

    def outputs_at(self, output: Array, positions: NDArray[np.int64]) -> Array:
        """groups, positions, outputs of each group."""
        if not self.node.op_type.startswith("Conv"):
            return output.reshape(-1, output.shape[-1])[positions][None]
        channels = output.shape[1]
        taken = output.reshape(channels, -1)[:, positions]
        return taken.reshape(self.groups, channels // self.groups, -1).swapaxes(1, 2)

    def sample(self, data: Array, output: Array, wanted: int, seed: tuple[int, int]) -> tuple[Array, Array]:
        """`patches` of the input `data` and `outputs_at`, at up to `wanted` positions that are drawn from the seed."""
        positions = self.positions(output, wanted, np.random.default_rng(seed))
        return self.patches(data, output, positions), self.outputs_at(output, positions)

    def patches(self, data: Array, output: Array, positions: NDArray[np.int64]) -> Array:
        """The inputs that the outputs at `positions` read: groups, positions, inputs. data: the layer's input."""
        if not self.node.op_type.startswith("Conv"):
            return data.reshape(-1, data.shape[-1])[positions][None]
        size = self.shape[2:]
        dilations = attribute(self.node, "dilations", [1, 1])
        strides = attribute(self.node, "strides", [1, 1])
        pads = self._pads(data.shape[2:], output.shape[2:], strides, dilations)
        if self.node.op_type == "ConvTranspose":
            data, pads = (
                _with_zeros(data, strides),
                [d * (k - 1) - p for d, k, p in zip([*dilations] * 2, size * 2, pads, strict=True)],
            )
            strides = [1, 1]
        rows, columns = np.divmod(positions, output.shape[3])
        # Behind the data, as much padding as the last position reads: more than `pads` where there is output_padding.
        after = []
        for axis in (0, 1):
            last = (output.shape[2 + axis] - 1) * strides[axis] + (size[axis] - 1) * dilations[axis]
            after.append(max(last + 1 - data.shape[2 + axis] - pads[axis], 0))
        padded = np.pad(data[0], ((0, 0), (pads[0], after[0]), (pads[1], after[1])))
        kernel_rows = np.repeat(np.arange(size[0]) * dilations[0], size[1])
        kernel_columns = np.tile(np.arange(size[1]) * dilations[1], size[0])
        index = (rows * strides[0])[:, None] + kernel_rows
        index = index * padded.shape[2] + (columns * strides[1])[:, None] + kernel_columns
        channels = padded.shape[0]
        taken = padded.reshape(channels, -1)[:, index]  # channels, positions, kernel
        grouped = taken.reshape(self.groups, channels // self.groups, len(positions), -1).swapaxes(1, 2)
        return np.ascontiguousarray(grouped).reshape(self.groups, len(positions), -1)

    def _pads(
        self, inputs: Sequence[int], outputs: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
    ) -> list[int]:
        """Padding before rows and columns, then after them."""
        automatic = attribute(self.node, "auto_pad", b"NOTSET")
        if automatic not in (b"SAME_UPPER", b"SAME_LOWER"):
            return list(attribute(self.node, "pads", [0, 0, 0, 0]))
        sizes = zip(inputs, outputs, strides, dilations, self.shape[2:], strict=True)
        total = [max((out - 1) * stride + (k - 1) * d + 1 - size, 0) for size, out, stride, d, k in sizes]
        less, more = [pad // 2 for pad in total], [pad - pad // 2 for pad in total]
        return less + more if automatic == b"SAME_UPPER" else more + less


def layers_of(model: ModelProto) -> dict[str, Layer]:
    """By the name of its weight, in order of execution, each layer whose weight is a constant of its own.

    Left out are weights that several nodes share, convolutions of one or three dimensions, transposed ones with
    auto_pad, and Gemm with transA, alpha or beta.
    """
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    outputs = {value.name for value in model.graph.output}
    found = {}
    for node in model.graph.node:
        weight = node.input[1] if len(node.input) > 1 else ""
        if weight in shapes and len(readers[weight]) == 1 and _is_linear(node, shapes[weight]):
            bias, norm = _shift(node, shapes, readers, outputs)
            groups = attribute(node, "group", 1)
            found[weight] = Layer(node, weight, shapes[weight], bias, norm, groups)
    return found


def _is_linear(node: NodeProto, shape: tuple[int, ...]) -> bool:
    if node.op_type == "Conv":
        return len(shape) == 4
    if node.op_type == "ConvTranspose":
        return len(shape) == 4 and attribute(node, "auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
    if node.op_type == "Gemm":
        plain = attribute(node, "alpha", 1.0) == 1 and attribute(node, "beta", 1.0) == 1
        return plain and not attribute(node, "transA", 0)
    return node.op_type == "MatMul" and len(shape) == 2


def _shift(
    node: NodeProto, shapes: dict[str, tuple[int, ...]], readers: dict[str, list[NodeProto]], outputs: set[str]
) -> tuple[str | None, str | None]:
    """The bias of a layer, or else the running mean of the batch norm behind it."""

    def is_own(name: str) -> bool:
        return name in shapes and len(shapes[name]) == 1 and len(readers[name]) == 1

    if len(node.input) > 2 and node.input[2]:
        return (node.input[2] if is_own(node.input[2]) else None), None
    behind = readers[node.output[0]]
    if len(behind) != 1 or node.output[0] in outputs:
        return None, None
    if behind[0].op_type == "BatchNormalization":
        return None, behind[0].input[3] if is_own(behind[0].input[3]) else None
    if node.op_type == "MatMul" and behind[0].op_type == "Add":
        bias = next((name for name in behind[0].input if is_own(name)), None)
        return bias, None
    return None, None


@dataclass
class Moments:
    """Sums over positions, of the patches x that a layer reads and of its outputs y; groups come first."""

    gram: Any = 0.0
    patches: Any = 0.0
    outputs: Any = 0.0
    squares: Any = 0.0
    count: int = 0

    @staticmethod
    def from_samples(samples: Iterable[tuple[Array, Array]], with_gram: bool = True) -> "Moments":
        """Of (x, y) of each image: groups, positions, values."""
        found = Moments()
        for x, y in samples:
            found.gram += gram_of(x) if with_gram else 0.0
            found.patches += x.sum(1, dtype=np.float64)
            found.outputs += y.sum(1, dtype=np.float64)
            found.squares += np.square(y, dtype=np.float64).sum(1)
            found.count += x.shape[1]
        return found

    def mean(self) -> Array:
        return np.asarray(self.patches / self.count)

    def second(self, centred: bool) -> Array:
        """x xᵀ, mean over positions."""
        mean = self.mean()
        return np.asarray(self.gram / self.count - (mean[:, :, None] * mean[:, None] if centred else 0.0))

    def variance(self) -> float:
        """Of the outputs, mean over channels."""
        return float((self.squares / self.count - np.square(self.outputs / self.count)).mean())


class Activations:
    """Runs a graph over some images piece by piece, so that a layer's weight can change before it is executed.

    Every node runs once for each image. Tensors that nodes yet to run will read are kept, in memory up to `memory`
    bytes and in temporary files beyond. Close it, or use it in a `with`.
    """

    def __init__(self, model: ModelProto, images: Sequence[Array], threads: int = 1, memory: int = MEMORY) -> None:
        self._model, self._threads, self._memory = model, threads, memory
        self.weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self._maker = {name: at for at, node in enumerate(model.graph.node) for name in node.output if name}
        self._waiting = set(range(len(model.graph.node)))  # nodes that have not run
        self._folder = tempfile.TemporaryDirectory(prefix="segslim-activations-")
        self._held: list[dict[str, Any]] = [{} for _ in images]
        self._bytes = 0
        name = next(value.name for value in model.graph.input if value.name not in self.weights)
        for held, image in zip(self._held, images, strict=True):
            self._keep(held, name, np.ascontiguousarray(image, np.float32))

    def __enter__(self) -> "Activations":
        return self

    def __exit__(self, *_: object) -> None:
        self._held = []
        self._folder.cleanup()

    def compute(self, *names: str) -> None:
        """Runs what `names` depend on and has not run, for all images; `read` gives their values until the next."""
        pending, nodes = list(names), set()
        while pending:
            at = self._maker.get(pending.pop())
            if at in self._waiting and at not in nodes:
                nodes.add(at)
                pending += self._model.graph.node[at].input
        if not nodes:
            return
        self._waiting -= nodes
        chosen = [self._model.graph.node[at] for at in sorted(nodes)]
        needed = {tensor for at in self._waiting for tensor in self._model.graph.node[at].input} | set(names)
        made = [tensor for node in chosen for tensor in node.output if tensor in needed]
        read = {tensor for node in chosen for tensor in node.input if tensor in self._held[0]}
        session = self._session(chosen, sorted(read), made)
        for held in self._held:
            results = session.run(made, {tensor: np.asarray(held[tensor]) for tensor in sorted(read)})
            for tensor in [tensor for tensor in held if tensor not in needed]:
                self._drop(held, tensor)
            for tensor, array in zip(made, results, strict=True):
                self._keep(held, tensor, array)

    def read(self, image: int, name: str) -> Array:
        return np.asarray(self._held[image][name])

    def _session(self, nodes: list[NodeProto], inputs: list[str], outputs: list[str]) -> Any:
        used = {name for node in nodes for name in node.input}
        constants = [numpy_helper.from_array(value, name) for name, value in self.weights.items() if name in used]
        first = self._held[0]
        graph = helper.make_graph(
            nodes,
            "piece",
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(first[name].dtype), None)
                for name in inputs
            ],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            constants,
        )
        piece = helper.make_model(graph, opset_imports=self._model.opset_import, ir_version=self._model.ir_version)
        return session_of(piece, self._threads)

    def _keep(self, held: dict[str, Any], name: str, array: Array) -> None:
        if self._bytes + array.nbytes <= self._memory:
            held[name] = array
            self._bytes += array.nbytes
            return
        with tempfile.NamedTemporaryFile(dir=self._folder.name, suffix=".npy", delete=False) as file:
            np.save(file, array)
        held[name] = np.load(file.name, mmap_mode="r")

    def _drop(self, held: dict[str, Any], name: str) -> None:
        array = held.pop(name)
        if isinstance(array, np.memmap):
            Path(str(array.filename)).unlink()
        else:
            self._bytes -= array.nbytes


def check_finite(layer: Layer, tensors: Mapping[str, str], *activations: Array) -> None:
    """Raises UserError naming the layer, by its parameter where `tensors` knows it, where a value is not finite."""
    if not all(np.isfinite(values).all() for values in activations):
        name = next((parameter for parameter, tensor in tensors.items() if tensor == layer.weight), layer.weight)
        raise UserError(
            f"{name}: the activations of its layer are not finite: check the weights and the images, which hold values "
            "that the network cannot compute with"
        )


def gram_of(rows: Array) -> Array:
    """xᵀ x of each group, as float64. rows: groups, rows, columns in float32: one image's, so that its sum is short."""
    return np.matmul(rows.swapaxes(1, 2), rows).astype(np.float64)


def _with_zeros(data: Array, strides: Iterable[int]) -> Array:
    """`data` with stride - 1 zeros between neighbours, as a transposed convolution reads it."""
    down, right = strides
    height, width = data.shape[2:]
    result = np.zeros((*data.shape[:2], (height - 1) * down + 1, (width - 1) * right + 1), data.dtype)
    result[:, :, ::down, ::right] = data
    return result
