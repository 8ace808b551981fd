"""What an exported graph wants and gives: its image, and what the channels of its output are."""

import math
from dataclasses import dataclass

from onnx import ModelProto, TensorProto

from segslim.errors import UserError
from segslim.onnx_graph import fold, infer_shapes
from segslim.onnx_tools import copied, inputs_of

#: What an output is, by the operator that makes it of scores; operators that may stand behind that one.
MAKERS = {"Sigmoid": "sigmoid", "Softmax": "softmax", "ArgMax": "labels"}
PASSING = ("Identity", "Cast", "Squeeze", "Unsqueeze")


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


class Reader:
    """Finds out what a graph wants and gives. `where` begins its errors."""

    def __init__(self, model: ModelProto, num_classes: int, where: str) -> None:
        self.model, self.graph, self.num_classes, self.where = model, model.graph, num_classes, where
        self.makers = {name: node for node in self.graph.node for name in node.output}

    def read(
        self, order: str, layout: str, output: str | None, kind: str, threshold: float, classes: list[int] | None
    ) -> Reading:
        """The arguments are those of ExportedNetwork. Raises UserError where it is not known which class is where."""
        image = inputs_of(self.graph)[0]
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
        model = copied(self.model)
        sides = inputs_of(model.graph)[0].type.tensor_type.shape.dim
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
