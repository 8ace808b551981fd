"""A network that is an exported ONNX graph: others trained it, maybe elsewhere, and none of its code is there.

What such graphs want and give differs. The engines get one that takes images N,C,H,W float32 as the data set makes
them, and gives one plane for each class of the data; the graph itself stays as it was given, under its own names.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model, uses_external_data

from segslim.errors import UserError
from segslim.files import open_regular
from segslim.onnx_graph import clean, drop_unused, fold, infer_shapes
from segslim.onnx_tools import attribute, session_of

OLDEST_OPSET, PER_CHANNEL_OPSET = 11, 13  # per channel: of QuantizeLinear, and of axes as we write them
LARGEST = (1 << 31) - 1  # bytes: protobuf holds no more in one message
#: Operators that hold integers in place of weights, or compute in them.
QUANTIZED = (
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"),
    *("ConvInteger", "MatMulInteger", "MatMulNBits"),
)
#: Inputs of these are numbers to compute with, not weights.
SETTINGS = {"Resize": (1, 2, 3), "Upsample": (1,), "Clip": (1, 2), "Pad": (2,), "Dropout": (1, 2), "Range": (0, 1, 2)}
#: What an output is, by the operator that makes it of scores; operators that may stand behind that one.
MAKERS = {"Sigmoid": "sigmoid", "Softmax": "softmax", "ArgMax": "labels"}
PASSING = ("Identity", "Cast", "Squeeze", "Unsqueeze")
#: The score of a class that the network does not know, and the least probability that a logarithm is taken of.
ABSENT, LEAST = -1e4, 1e-6


@dataclass(frozen=True)
class Reading:
    """How a graph takes images and what its output means, with every `auto` decided by a look at it.

    image: the name of its input; integer: whether that is uint8; channels: of an image; reverse: whether it wants blue
    first; channels_last: whether images and output are N,H,W,C. scores: the tensor that the output is made of, before
    softmax, sigmoid or argmax; logarithm: what makes logits of it where these are nowhere: "sigmoid", "softmax" or
    None; planes: the class of each channel of the scores, -1 for none; threshold: the logit that a class must reach
    where background has no channel, else None.
    """

    image: str
    integer: bool
    channels: int
    reverse: bool
    channels_last: bool
    scores: str
    logarithm: str | None
    planes: tuple[int, ...]
    threshold: float | None


class ExportedNetwork:
    """An ONNX graph in place of a network's code.

    Args:
        file: an .onnx file, or a graph that was read already.
        num_classes: of the data.
        order: of the channels of an image: rgb or bgr.
        layout: of images and output: NCHW or NHWC; auto: as the shape of the input says.
        output: the name of the output, where there are several.
        kind: what that holds: logits, softmax, sigmoid or labels; auto: as the operator says that makes it.
        threshold: a pixel where no class has this probability is background; where background has no channel.
        classes: the class of the data of each of its channels (-1: none), in order, with names or without; None:
            channel k is class k, or k + 1 where background has no channel.

    Raises UserError, in one line, for what is no ONNX file or cannot be read as a network of one image: with control
    flow, operators of others, several inputs, an opset below 11, weights in files that are not beside it, or an output
    of which it is not known which class is where.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | ModelProto,
        num_classes: int,
        order: str = "rgb",
        layout: str = "auto",
        output: str | None = None,
        kind: str = "auto",
        threshold: float = 0.5,
        classes: Sequence[int] | Mapping[str, int] | None = None,
    ) -> None:
        self.model = file if isinstance(file, ModelProto) else read_graph(Path(file))
        self.num_classes = num_classes
        self.where = "the graph" if isinstance(file, ModelProto) else f"model.file={file}"
        mapping = list(classes.values() if isinstance(classes, Mapping) else classes or ()) or None
        self.reading = _Reader(self).read(order, layout, output, kind, threshold, mapping)

    @property
    def image_channels(self) -> int:
        return self.reading.channels

    @property
    def input_size(self) -> tuple[int | None, int | None]:
        """(width, height) that the graph takes, None for any."""
        sides = [side.dim_value or None for side in _image_of(self.model.graph).type.tensor_type.shape.dim]
        height, width = sides[1:3] if self.reading.channels_last else sides[2:]
        return width, height

    @property
    def quantized(self) -> str | None:
        """An operator by which it is quantized already."""
        return next((node.op_type for node in self.model.graph.node if node.op_type in QUANTIZED), None)

    @property
    def normalizes(self) -> bool:
        """Whether the graph itself shifts or scales its image before anything else, so that it wants plain numbers."""
        constants = {tensor.name for tensor in self.model.graph.initializer}
        tensor = self.reading.image
        while True:
            readers = [node for node in self.model.graph.node if tensor in node.input]
            if len(readers) != 1 or readers[0].op_type not in ("Cast", "Transpose", "Gather"):
                break
            tensor = readers[0].output[0]
        return bool(readers) and all(
            node.op_type in ("Sub", "Add", "Mul", "Div") and constants.intersection(node.input) for node in readers
        )

    def check_size(self, size: tuple[int, int]) -> None:
        """Raises UserError where it does not take images of this size, (width, height), or computes nothing of them."""
        fixed = self.input_size
        if any(own not in (None, given) for own, given in zip(fixed, size, strict=True)):
            raise UserError(
                f"dataset.size=[{size[0]},{size[1]}]: {self.where} takes images of {fixed[0]} x {fixed[1]};"
                f" give dataset.size=[{fixed[0] or size[0]},{fixed[1] or size[1]}]"
            )
        try:
            shape = self.logits(np.zeros((1, self.image_channels, size[1], size[0]), np.float32)).shape
        except UserError:
            raise
        except Exception as error:  # onnxruntime has a kind of its own for everything, with no base but this
            reason = " ".join(str(error).split())[-160:]
            raise UserError(f"{self.where}: ONNX Runtime does not run it at {size[0]} x {size[1]} ({reason})") from None
        if len(shape) != 4 or shape[1] != self.num_classes:
            raise UserError(f"{self.where}: gives {shape}, not a plane for each of {self.num_classes} classes")

    def state_dict(self) -> dict[str, np.ndarray]:
        """The weights, by the names of their initializers; without the numbers that operators are set by."""
        settings = _settings(self.model.graph)
        return {
            tensor.name: numpy_helper.to_array(tensor)
            for tensor in self.model.graph.initializer
            if tensor.data_type == TensorProto.FLOAT and tensor.name not in settings
        }

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Replaces initializers, in place."""
        with_weights(self.model, weights)

    def without_weights(self) -> ModelProto:
        """The graph alone; `with_weights` gives them back."""
        copy, weights = _copy(self.model), self.state_dict().keys()
        for tensor in copy.graph.initializer:
            if tensor.name in weights:
                tensor.CopyFrom(TensorProto(name=tensor.name, data_type=tensor.data_type, dims=[0]))
        return copy

    def prune(self, kept: Mapping[str, Mapping[int, Sequence[int]]], sizes: Mapping[str, Mapping[str, int]]) -> None:
        """Cuts initializers, in place, and sets what counts their channels.

        Args:
            kept: for each initializer and axis, the indices that stay.
            sizes: {initializer: {position: number}}, of shapes. Groups of depthwise convolutions follow their weights.
        """
        graph = self.model.graph
        depthwise = {
            node.input[1]: node for node in graph.node if node.op_type == "Conv" and attribute(node, "group", 1) > 1
        }
        for tensor in graph.initializer:
            if tensor.name not in kept and tensor.name not in sizes:
                continue
            value = numpy_helper.to_array(tensor)
            pruned = value.copy()
            for axis, indices in kept.get(tensor.name, {}).items():
                pruned = pruned.take(indices, axis)
            for position, size in sizes.get(tensor.name, {}).items():
                pruned.flat[int(position)] = size
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(pruned), tensor.name))
            if tensor.name in depthwise and value.shape[1] == 1:
                (group,) = [given for given in depthwise[tensor.name].attribute if given.name == "group"]
                group.i = group.i * len(pruned) // len(value)
        del graph.value_info[:]  # shapes of the network before it

    def graph(self, input_shape: Sequence[int | None], output: str) -> ModelProto:
        """What the engines run: images N,C,H,W float32 to class ids N,H,W int32 ("argmax"), or to N,K,H,W float32
        ("logits", "softmax"); its only output has that name. `input_shape` has None for what is to stay dynamic.

        Raises UserError where a size is to be dynamic that the graph fixes.
        """
        if None in input_shape[2:] and self.input_size != (None, None):
            width, height = self.input_size
            raise UserError(
                f"export.size=dynamic: {self.where} takes images of {width} x {height} alone; give a fixed size"
            )
        model = with_opset(_copy(self.model))
        graph, reading = model.graph, self.reading
        _rename(graph, {output: f"{output}:given"} if reading.scores != output else {})
        before, behind = _Builder(graph), _Builder(graph)
        image = _adapt(before, reading)
        _finish(behind, reading, self.num_classes, output)
        shape = [side or name for side, name in zip(input_shape, ("N", "C", "H", "W"), strict=True)]
        nodes = [NodeProto.FromString(n.SerializeToString()) for n in (*before.nodes, *graph.node, *behind.nodes)]
        del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
        graph.node.extend(nodes)
        graph.input.append(helper.make_tensor_value_info(image, TensorProto.FLOAT, shape))
        kind = TensorProto.INT32 if output == "argmax" else TensorProto.FLOAT
        graph.output.append(helper.make_tensor_value_info(output, kind, None))
        drop_unused(graph)
        fold(model)
        return model

    def logits(self, image: np.ndarray) -> np.ndarray:
        """N,K,H,W of images N,C,H,W, each node computed by itself."""
        session = session_of(self.graph(image.shape, "logits"), 0, optimized=False)
        result: np.ndarray = session.run(None, {session.get_inputs()[0].name: image})[0]
        return result


class _Reader:
    """Finds out what a graph wants and gives."""

    def __init__(self, network: ExportedNetwork) -> None:
        self.graph, self.where, self.num_classes = network.model.graph, network.where, network.num_classes
        self.model = network.model
        self.makers = {name: node for node in self.graph.node for name in node.output}

    def read(
        self, order: str, layout: str, output: str | None, kind: str, threshold: float, classes: list[int] | None
    ) -> Reading:
        image = _image_of(self.graph)
        sides = [side.dim_value for side in image.type.tensor_type.shape.dim]
        few = (1, 3, 4)
        last = layout == "NHWC" or (layout == "auto" and sides[3] in few and sides[1] not in few)
        channels = sides[3 if last else 1] or 3
        name = self._output(output)
        found, scores = self._scores(name)
        given = found if kind == "auto" else kind
        if given == "labels" and found != "labels":
            raise UserError(f"{self.where}: no ArgMax makes {name}, and no scores are known; give a file with scores")
        if found in ("softmax", "sigmoid", "labels") and given != found:
            scores = name
        logarithm = given if given in ("softmax", "sigmoid") and found != given else None
        planes, alone = self._planes(self._channels(scores, last), given, classes)
        return Reading(
            image=image.name,
            integer=image.type.tensor_type.elem_type == TensorProto.UINT8,
            channels=channels,
            reverse=order == "bgr",
            channels_last=last,
            scores=scores,
            logarithm=logarithm,
            planes=planes,
            threshold=math.log(threshold / (1 - threshold)) if alone else None,
        )

    def _output(self, given: str | None) -> str:
        names = [output.name for output in self.graph.output]
        if given is None and len(names) > 1:
            raise UserError(f"{self.where}: has the outputs {', '.join(names)}; give model.output.name={names[0]}")
        if given is not None and given not in names:
            raise UserError(f"model.output.name={given}: {self.where} has {', '.join(names)}")
        return given or names[0]

    def _scores(self, output: str) -> tuple[str, str]:
        """What an output is, and the tensor that it is made of."""
        tensor = output
        while tensor in self.makers:
            node = self.makers[tensor]
            if node.op_type in MAKERS:
                return MAKERS[node.op_type], node.input[0]
            if node.op_type not in PASSING:
                break
            tensor = node.input[0]
        return "logits", output

    def _channels(self, scores: str, last: bool) -> int:
        sides = self._sides(scores)
        if len(sides) != 4 or not sides[3 if last else 1]:
            seen = " x ".join(str(side or "?") for side in sides) or "unknown"
            raise UserError(
                f"{self.where}: the shape of {scores}, of which its output is made, is {seen}; one plane of scores for"
                " each class is needed: give another model.output.name, or model.input.layout=NHWC"
            )
        return sides[3 if last else 1]

    def _sides(self, tensor: str) -> list[int]:
        model = _copy(self.model)
        sides = _image_of(model.graph).type.tensor_type.shape.dim
        for side, size in zip(sides, (1, 3, 256, 256), strict=True):
            side.dim_value = side.dim_value or size
        fold(model)
        known = infer_shapes(model).get(tensor)
        return [side.dim_value for side in known.type.tensor_type.shape.dim] if known is not None else []

    def _planes(self, count: int, kind: str, classes: list[int] | None) -> tuple[tuple[int, ...], bool]:
        """The class of each channel, and whether background has none."""
        alone = kind == "sigmoid" or count == 1
        wanted = self.num_classes
        if classes is None:
            first = 1 if alone and count != wanted else 0
            classes = list(range(first, first + count))
            if (count if classes[0] == 0 else count + 1) != wanted:
                raise UserError(
                    f"{self.where}: its output has {count} channels ({kind}), and dataset.num_classes is {wanted}; give"
                    f" dataset.num_classes={count + alone}, or the class of each channel as"
                    f" model.output.classes=[{','.join(str(min(k + alone, wanted - 1)) for k in range(count))}]"
                )
        if len(classes) != count:
            raise UserError(
                f"model.output.classes={classes}: its output has {count} channels; give the class of each, -1 for none"
            )
        wrong = next((each for each in classes if not -1 <= each < wanted), None)
        if wrong is not None or max(classes) < 0:
            raise UserError(f"model.output.classes={classes}: should be below dataset.num_classes={wanted}")
        return tuple(classes), alone and 0 not in classes


def read_graph(file: Path) -> ModelProto:
    """The graph of an .onnx file, cleaned; nothing of it is run. Raises UserError as ExportedNetwork does."""
    where = f"model.file={file}"
    model = _parsed(file, where)
    _beside(model, file)
    try:
        load_external_data_for_model(model, str(file.resolve().parent))
    except Exception as error:  # whatever onnx raises of an offset or a length
        raise UserError(f"{where}: the weights beside it cannot be read ({error}); export it again") from None
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if not model.graph.node or not opset:
        raise UserError(f"{where}: is no ONNX file; give one that a framework has exported")
    if opset < OLDEST_OPSET:
        raise UserError(f"{where}: is of opset {opset}; export it again with opset {OLDEST_OPSET} or above")
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise UserError(f"{where}: {node.op_type} is an operator of {node.domain}; export it with ONNX's own alone")
        if any(each.HasField("g") or each.graphs for each in node.attribute):
            raise UserError(
                f"{where}: {node.op_type} branches or loops, which pruning cannot follow; export it for one size"
            )
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # onnx's and protobuf's have no base but this
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"{where}: onnx.checker refuses it ({reason}); export it again") from None
    inputs = _inputs(model.graph)
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs) or "none"
        raise UserError(f"{where}: has the inputs {names}; a network of one image has one")
    kind, rank = inputs[0].type.tensor_type.elem_type, len(inputs[0].type.tensor_type.shape.dim)
    if rank != 4:
        raise UserError(f"{where}: its input {inputs[0].name} has {rank} dimensions; images have 4: N,C,H,W or N,H,W,C")
    if kind not in (TensorProto.FLOAT, TensorProto.UINT8):
        raise UserError(f"{where}: its input is of {_type(kind)}; export it with an input of float32, or of uint8")
    half = next(
        (t for t in model.graph.initializer if t.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16)), None
    )
    if half is not None:
        raise UserError(f"{where}: {half.name} is of {_type(half.data_type)}; export the network in float32")
    clean(model)
    _own_vectors(model.graph)
    return model


def _own_vectors(graph: GraphProto) -> None:
    """Gives each reader of a bias, scale or statistic a copy of its own.

    Exporters keep one of several that hold the same numbers, as those of a new network do; the channels of their layers
    would live and die together for it.
    """
    vectors = {t.name: t for t in graph.initializer if len(t.dims) == 1 and t.data_type == TensorProto.FLOAT}
    taken: set[str] = set()
    for node in graph.node:
        for at, name in enumerate(node.input):
            if name in vectors and name in taken:
                node.input[at] = f"{name}:{node.output[0]}:{at}"
                copy = graph.initializer.add()
                copy.CopyFrom(vectors[name])
                copy.name = node.input[at]
            taken.add(name)


def files_of(file: Path) -> list[Path]:
    """An .onnx file, and those beside it that hold its weights. Raises UserError where one is missing."""
    model = _parsed(file, f"model.file={file}")
    return [file, *_beside(model, file)]


def _beside(model: ModelProto, file: Path) -> list[Path]:
    folder, found = file.resolve().parent, []
    for tensor in filter(uses_external_data, model.graph.initializer):
        other = ExternalDataInfo(tensor).location
        path = (folder / other).resolve()
        if not path.is_relative_to(folder) or not path.is_file():
            raise UserError(f"model.file={file}: its weights are in {other}, which is not a file beside it")
        found.append(path)
    return sorted(set(found))


def _parsed(file: Path, where: str) -> ModelProto:
    try:
        with open_regular(file) as stream:
            if file.stat().st_size > LARGEST:
                raise UserError(f"{where}: has 2 GB or more, which no ONNX file can hold; export its weights beside it")
            content = stream.read()
    except FileNotFoundError:
        raise UserError(f"{where}: does not exist; give the path of an .onnx file") from None
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror or error}); give an .onnx file") from None
    try:
        model = ModelProto.FromString(content)
    except Exception:  # protobuf's
        raise UserError(f"{where}: is no ONNX file; give one that a framework has exported") from None
    return model


def with_weights(model: ModelProto, weights: Mapping[str, np.ndarray]) -> ModelProto:
    """Replaces the initializers of these names, in place. Returns the model."""
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(weights[tensor.name]), tensor.name))
    return model


def with_opset(model: ModelProto, opset: int = PER_CHANNEL_OPSET) -> ModelProto:
    """Raises the opset of a model of 11 or 12 to 13, in place: axes become inputs. Returns it.

    onnx.version_converter renames tensors, by which ranges and weights are known. Raises UserError for a Softmax over
    several axes, which 13 does not have.
    """
    entry = next(each for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if entry.version >= opset:
        return model
    graph = model.graph
    for at, node in enumerate(graph.node):
        if node.op_type in ("Softmax", "LogSoftmax", "Hardmax"):
            _check_softmax(node, model)
        for given in list(node.attribute):
            moved = (node.op_type in ("Squeeze", "Unsqueeze", "ReduceSum") and given.name == "axes") or (
                node.op_type == "Split" and given.name == "split"
            )
            if moved:
                name = f"{node.output[0]}:{given.name}:{at}"
                graph.initializer.append(numpy_helper.from_array(np.array(given.ints, np.int64), name))
                node.input.append(name)
                node.attribute.remove(given)
    entry.version = opset
    return model


def _check_softmax(node: NodeProto, model: ModelProto) -> None:
    axis = attribute(node, "axis", 1)
    known = infer_shapes(model).get(node.input[0])
    rank = len(known.type.tensor_type.shape.dim) if known is not None else 0
    if axis not in (-1, rank - 1):
        raise UserError(f"model.file: {node.op_type} over all axes from {axis} on; export it again with opset 13")
    for given in node.attribute:
        given.i = -1 if given.name == "axis" else given.i


class _Builder:
    """Nodes that are made one after another, and their constants, which go into the graph at once."""

    def __init__(self, graph: GraphProto) -> None:
        self.graph, self.nodes = graph, list[NodeProto]()

    def constant(self, value: float | Sequence[int]) -> str:
        name = f"constant:{value if isinstance(value, float) else list(value)}"
        if all(tensor.name != name for tensor in self.graph.initializer):
            kind = np.float32 if isinstance(value, float) else np.int64
            self.graph.initializer.append(numpy_helper.from_array(np.array(value, kind), name))
        return name

    def add(self, kind: str, inputs: Sequence[str], made: str, **given: object) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [made], name=f"segslim:{made}", **given))
        return made


def _adapt(build: _Builder, reading: Reading) -> str:
    """From an image N,C,H,W float32 to what the graph takes. Returns the name of that image."""
    taken = {name for node in build.graph.node for name in (*node.input, *node.output)}
    image = next(name for name in ("x", "image", "segslim:image") if name not in taken)
    tensor = image
    if reading.reverse:
        tensor = build.add("Gather", [tensor, build.constant(range(reading.channels)[::-1])], "image:bgr", axis=1)
    if reading.channels_last:
        tensor = build.add("Transpose", [tensor], "image:last", perm=[0, 2, 3, 1])
    if reading.integer:
        tensor = build.add("Cast", [build.add("Round", [tensor], "image:round")], "image:uint8", to=TensorProto.UINT8)
    if not build.nodes:
        return reading.image
    build.nodes[-1].output[0] = reading.image
    return image


def _finish(build: _Builder, reading: Reading, num_classes: int, output: str) -> None:
    """From the scores to the classes of the data, and to the output."""
    tensor = reading.scores
    if reading.channels_last:
        tensor = build.add("Transpose", [tensor], "scores:planes", perm=[0, 3, 1, 2])
    if reading.logarithm:
        clipped = build.add("Clip", [tensor, build.constant(LEAST), build.constant(1 - LEAST)], "scores:clipped")
        tensor = build.add("Log", [clipped], "scores:log")
        if reading.logarithm == "sigmoid":
            rest = build.add(
                "Log", [build.add("Sub", [build.constant(1.0), clipped], "scores:rest")], "scores:log rest"
            )
            tensor = build.add("Sub", [tensor, rest], "scores:odds")
    if reading.planes != tuple(range(num_classes)):
        planes = [_plane(build, reading, tensor, each) for each in range(num_classes)]
        tensor = build.add("Concat", planes, "scores:classes", axis=1)
    if output == "softmax":
        build.add("Softmax", [tensor], "softmax", axis=1)
    elif output == "argmax":
        ids = build.add("ArgMax", [tensor], "argmax:long", axis=1, keepdims=0)
        build.add("Cast", [ids], "argmax", to=TensorProto.INT32)
    elif tensor != "logits":
        build.add("Identity", [tensor], "logits")


def _plane(build: _Builder, reading: Reading, scores: str, each: int) -> str:
    """Of one class: that of its channel, the largest of several, or a constant where it has none."""
    own = [channel for channel, its in enumerate(reading.planes) if its == each]
    parts = [
        build.add("Gather", [scores, build.constant([channel])], f"scores:{each}:{channel}", axis=1)
        for channel in own or [0]
    ]
    if own:
        return parts[0] if len(parts) == 1 else build.add("Max", parts, f"scores:{each}")
    level = reading.threshold if each == 0 and reading.threshold is not None else ABSENT
    none = build.add("Mul", [parts[0], build.constant(0.0)], f"scores:{each}:none")
    return build.add("Add", [none, build.constant(float(level))], f"scores:{each}")


def _rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for tensor in (*graph.initializer, *graph.input):
        tensor.name = names.get(tensor.name, tensor.name)


def _inputs(graph: GraphProto) -> list[onnx.ValueInfoProto]:
    constants = {tensor.name for tensor in graph.initializer}
    return [each for each in graph.input if each.name not in constants]


def _image_of(graph: GraphProto) -> onnx.ValueInfoProto:
    return _inputs(graph)[0]


def _settings(graph: GraphProto) -> set[str]:
    """The initializers by which operators are set."""
    return {
        node.input[at]
        for node in graph.node
        for at in SETTINGS.get(node.op_type, ())
        if at < len(node.input) and node.input[at]
    }


def _copy(model: ModelProto) -> ModelProto:
    return ModelProto.FromString(model.SerializeToString())


def _type(kind: int) -> str:
    return TensorProto.DataType.Name(kind).lower()
