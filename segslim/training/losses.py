"""What a network is trained on: PaddleSeg's losses of its heads, distillation, and the gradients of the loss."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segslim.errors import UserError
from segslim.paddle_compat import arithmetic_of_integers_and_floats, import_paddle, import_paddleseg
from segslim.plugins import instantiate


@dataclass(frozen=True)
class Losses:
    """One loss and one weight per head, the main head first."""

    types: tuple[Any, ...]
    coef: tuple[float, ...]


@dataclass(frozen=True)
class Distillation:
    """Knowledge distillation from a teacher network.

    Args:
        kind: a key of DISTILLATIONS.
        weight: of the distillation loss; the losses of the labels keep their own.
        temperature: by which logits are divided before the softmax.
    """

    kind: str
    weight: float
    temperature: float


def build_losses(config: Mapping[str, Any], seed: int = 0, ignore_index: int = 255) -> Losses:
    """Builds the losses of {"types": [{"_target_": "paddleseg.models.CrossEntropyLoss", ...}], "coef": [1.0, 0.4]}.

    As in PaddleSeg's configs, a single type is used for all heads of `coef`. Random weights that a loss holds
    (DetailAggregateLoss) are drawn from `seed`. A loss that takes an `ignore_index` and is not given one gets ours.

    Raises UserError when a type cannot be built, or the numbers of types and coefficients differ.
    """
    unknown = config.keys() - {"types", "coef"}
    if unknown or not config.get("types") or not config.get("coef"):
        raise UserError(
            f"model.loss has the keys {', '.join(config)}: give it types and coef, one of each for every head"
        )
    import_paddle().seed(seed)
    import_paddleseg()
    coef = tuple(float(weight) for weight in config["coef"])
    ignored = {"ignore_index": ignore_index}
    types = tuple(instantiate(node, f"model.loss.types[{at}]", ignored) for at, node in enumerate(config["types"]))
    if len(types) == 1:
        types *= len(coef)
    if len(types) != len(coef):
        raise UserError(f"model.loss has {len(types)} types and {len(coef)} coef: give as many of one as of the other")
    return Losses(types, coef)


def segmentation_loss(logits: Sequence[Any], label: Any, losses: Losses) -> Any:
    """Returns the weighted sum of the heads' losses, a scalar tensor with a gradient.

    `logits` holds one N,C,H,W tensor per head, `label` is N,H,W int64. A MixedLoss counts as one head's loss.

    Raises UserError when the network has more or fewer heads than there are losses, or a loss cannot take its logits.
    """
    check_heads(logits, losses)
    terms = []
    with arithmetic_of_integers_and_floats():
        for head, loss, weight in zip(logits, losses.types, losses.coef, strict=True):
            try:
                value = loss(*_what_it_compares(loss, head, logits, label))
            except (AssertionError, IndexError, ValueError) as error:  # what PaddleSeg's losses raise for wrong shapes
                shape = "x".join(map(str, getattr(head, "shape", ["several outputs"])))
                reason = " ".join(str(error).split())
                raise UserError(f"model.loss: {type(loss).__name__} cannot take logits of {shape}: {reason}") from error
            # a MixedLoss returns the list of its weighted terms; some losses return shape [1] instead of []
            terms += [weight * part.sum() for part in (value if isinstance(value, list) else [value])]
    return sum(terms[1:], terms[0])


def _what_it_compares(loss: Any, head: Any, heads: Sequence[Any], label: Any) -> tuple[Any, Any]:
    """A head's output and its target, as PaddleSeg's training gives them: most often the label."""
    name = type(loss).__name__
    if getattr(loss, "edge_label", False):
        return head, _edges(label, heads[0].shape[1])
    if name == "KLLoss":  # of two heads of one network
        return heads[0], heads[1].detach()
    if name == "MaskFormerLoss":
        if import_paddle().__version__.startswith("2."):
            raise UserError("model.loss: MaskFormerLoss gathers masks, which Paddle 2 does on no CPU; use Paddle 3")
        return head, _instances(label, loss.ignore_index)
    return head, label


def _edges(label: Any, num_classes: int) -> Any:
    """N,1,H,W int64: 1 within two pixels of where the class changes, as PaddleSeg's data sets give it with `edge`."""
    from paddleseg.transforms.functional import mask_to_binary_edge

    edges = [mask_to_binary_edge(each, radius=2, num_classes=num_classes) for each in label.numpy()]
    return import_paddle().to_tensor(np.stack(edges).astype(np.int64))


class _PerImage:
    """What MaskFormerLoss indexes by [image, ...], with another number of classes for each image."""

    def __init__(self, arrays: list[np.ndarray]) -> None:
        self.tensors = [import_paddle().to_tensor(array) for array in arrays]
        self.shape = [len(arrays)]

    def __getitem__(self, key: Any) -> Any:
        return self.tensors[key[0]]


def _instances(label: Any, ignore_index: int) -> dict[str, Any]:
    """The classes of each image and their masks, as PaddleSeg's GenerateInstanceTargets gives them, but not filled up
    to num_classes: what skips the rest in PaddleSeg 2.8.0 fails with numpy 2.4.
    """
    arrays = label.numpy()
    classes = [np.unique(each[each != ignore_index]) for each in arrays]
    masks = [(each[None] == own[:, None, None]).astype(np.float32) for each, own in zip(arrays, classes, strict=True)]
    return {"gt_classes": _PerImage(classes), "gt_masks": _PerImage(masks)}


def check_heads(logits: Sequence[Any], losses: Losses) -> None:
    """Raises UserError when the network has more or fewer heads than there are losses."""
    if len(logits) != len(losses.types):
        raise UserError(
            f"model.loss is for {len(losses.types)} heads, and the network has {len(logits)} in training:"
            f" give model.loss.coef {len(logits)} weights"
        )


def distillation_loss(student: Any, teacher: Any, options: Distillation) -> Any:
    """Returns the distance of the student's logits from the teacher's, both N,C,H,W: a scalar, 0 where they are equal.

    Raises UserError when their shapes differ.
    """
    if student.shape != teacher.shape:
        shapes = [" x ".join(map(str, each.shape)) for each in (student, teacher)]
        raise UserError(
            f"retrain.distill: the network gives logits of {shapes[0]}, its teacher {shapes[1]}:"
            " give retrain.distill.kind=none"
        )
    kind = DISTILLATIONS[options.kind]
    return options.weight * kind(student, teacher.detach(), options.temperature)


def pixel_wise(student: Any, teacher: Any, temperature: float) -> Any:
    """Returns the mean over pixels of T^2 KL(teacher || student) of their class distributions at temperature T.

    Hinton et al., Distilling the knowledge in a neural network, 2015 (arXiv:1503.02531), applied to each pixel.
    """
    batch, _, height, width = student.shape
    return _divergence(student, teacher, temperature, axis=1) / (batch * height * width)


def channel_wise(student: Any, teacher: Any, temperature: float) -> Any:
    """Returns the mean over images and channels of T^2 KL(teacher || student) of each channel's spatial distribution.

    Shu et al., Channel-wise knowledge distillation for dense prediction, ICCV 2021 (arXiv:2011.13256).
    """
    batch, channels = student.shape[:2]
    return _divergence(student.flatten(2), teacher.flatten(2), temperature, axis=2) / (batch * channels)


DISTILLATIONS = {"logits": pixel_wise, "channel_wise": channel_wise}


def _divergence(student: Any, teacher: Any, temperature: float, axis: int) -> Any:
    student_log, teacher_log = (_log_softmax(logits / temperature, axis) for logits in (student, teacher))
    return temperature**2 * (teacher_log.exp() * (teacher_log - student_log)).sum()


def _log_softmax(logits: Any, axis: int) -> Any:
    """Replaces Paddle's log_softmax, which is slow along a long axis.

    On the CPU, Paddle 3.3.1 takes 26 s for 44 maps of 49,152 pixels, and this 0.05 s. It can go when
    `F.log_softmax(x, axis=-1)` of such a tensor takes no longer than `x - logsumexp(x)`.
    """
    return logits - import_paddle().logsumexp(logits, axis=axis, keepdim=True)


def gradients(
    network: Any, batches: Iterable[Mapping[str, Any]], losses: Losses, device: str = "cpu"
) -> Iterator[dict[str, np.ndarray]]:
    """Yields, per batch, the gradient of the main head's loss for every parameter it depends on, by state-dict name.

    The network is put into evaluation mode and is not changed: no dropout, no update of batch norm's statistics.

    Args:
        network: the network; auxiliary heads are ignored.
        batches: each {"img": N,3,H,W float32, "label": N,H,W int64}.
        losses: only the first one is used.
        device: "cpu" or "gpu".
    """
    paddle = import_paddle()
    main = Losses(losses.types[:1], losses.coef[:1])

    def terms() -> Iterator[Any]:
        for batch in batches:
            image, label = (paddle.to_tensor(batch[key]) for key in ("img", "label"))
            yield segmentation_loss(network(image)[:1], label, main)

    yield from _gradients_of(network, terms(), device)


def fisher_gradients(
    network: Any, images: Iterable[np.ndarray], draws: int, seed: int, device: str = "cpu"
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the gradient of the log-likelihood of labels drawn from the network's own prediction, pixel by pixel: the
    mean of its squares is the Fisher information, and no label is needed.

    Args:
        network: as for `gradients`.
        images: each 1,3,H,W float32.
        draws: of labels for each image; a gradient for each.
        seed: of the draws.
        device: "cpu" or "gpu".
    """
    paddle = import_paddle()
    random = np.random.default_rng(seed)

    def terms() -> Iterator[Any]:
        for image in images:
            for _ in range(draws):
                logits = network(paddle.to_tensor(image))[0]
                log_probabilities = _log_softmax(logits, axis=1)
                # the largest of these is at class c as often as c is probable (the Gumbel-max trick)
                drawn = (log_probabilities.numpy() + random.gumbel(size=logits.shape)).argmax(1)
                chosen = paddle.nn.functional.one_hot(paddle.to_tensor(drawn), logits.shape[1])  # N,H,W,C
                yield -(log_probabilities.transpose([0, 2, 3, 1]) * chosen).sum() / drawn.size

    yield from _gradients_of(network, terms(), device)


def _gradients_of(network: Any, terms: Iterator[Any], device: str) -> Iterator[dict[str, np.ndarray]]:
    import_paddle().set_device(device)
    network.eval()
    parameters = {name: value for name, value in network.state_dict().items() if not value.stop_gradient}
    for loss in terms:
        loss.backward()
        yield {name: value.grad.numpy() for name, value in parameters.items() if value.grad is not None}
        for parameter in parameters.values():
            parameter.clear_gradient(set_to_zero=False)  # else a parameter without gradient would get zeros
