"""Knowledge distillation: the pruned network (the student) also learns to answer as the dense one (the teacher)."""

from dataclasses import dataclass
from typing import Any

from segslim.errors import UserError
from segslim.paddle_compat import import_paddle


@dataclass(frozen=True)
class Distillation:
    """`kind` is a key of DISTILLATIONS; `weight` is of its loss beside the network's own; `temperature` softens."""

    kind: str
    weight: float
    temperature: float


def distillation_loss(student: Any, teacher: Any, options: Distillation) -> Any:
    """How far the student's logits are from the teacher's, both N,C,H,W: a scalar tensor, 0 where they are equal.

    Raises UserError when their shapes differ.
    """
    if student.shape != teacher.shape:
        shapes = [" x ".join(map(str, logits.shape)) for logits in (student, teacher)]
        raise UserError(
            f"retrain.distill: the network gives logits of {shapes[0]}, its teacher {shapes[1]}:"
            " give retrain.distill.kind=none"
        )
    kind = DISTILLATIONS[options.kind]
    return options.weight * kind(student, teacher.detach(), options.temperature)


def logits(student: Any, teacher: Any, temperature: float) -> Any:
    """The mean over the pixels of T^2 KL(teacher || student), of the distributions over the classes at temperature T.

    Hinton et al., Distilling the knowledge in a neural network, 2015 (arXiv:1503.02531), pixel by pixel.
    """
    batch, _, height, width = student.shape
    return _divergence(student, teacher, temperature, axis=1) / (batch * height * width)


def channel_wise(student: Any, teacher: Any, temperature: float) -> Any:
    """The mean over images and channels of T^2 KL(teacher || student), of each channel's distribution over the pixels.

    Shu et al., Channel-wise knowledge distillation for dense prediction, ICCV 2021 (arXiv:2011.13256).
    """
    batch, channels = student.shape[:2]
    return _divergence(student.flatten(2), teacher.flatten(2), temperature, axis=2) / (batch * channels)


DISTILLATIONS = {"logits": logits, "channel_wise": channel_wise}


def _divergence(student: Any, teacher: Any, temperature: float, axis: int) -> Any:
    ours, theirs = (_log_softmax(maps / temperature, axis) for maps in (student, teacher))
    return temperature**2 * (theirs.exp() * (theirs - ours)).sum()


def _log_softmax(maps: Any, axis: int) -> Any:
    """Paddle's own takes seconds along a long axis.

    On the CPU, Paddle 3.3.1 takes 26 s for 44 maps of 49,152 pixels, and this 0.05 s. It can go when
    `F.log_softmax(x, axis=-1)` of such a tensor takes no longer than `x - logsumexp(x)`.
    """
    return maps - import_paddle().logsumexp(maps, axis=axis, keepdim=True)
