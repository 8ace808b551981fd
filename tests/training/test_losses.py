import numpy as np
import pytest

from segslim.errors import UserError
from segslim.paddle_compat import import_paddle
from segslim.training.losses import build_losses, segmentation_loss
from tests.training.toy import CROSS_ENTROPY

paddle = import_paddle()
SEG = "paddleseg.models"


def _logits(classes: int = 3) -> "paddle.Tensor":
    values = np.random.default_rng(0).normal(size=(2, classes, 16, 16)).astype(np.float32)
    return paddle.to_tensor(values, stop_gradient=False)


def _label(classes: int = 3) -> "paddle.Tensor":
    label = np.random.default_rng(1).integers(0, classes, (2, 16, 16))
    label[:, :4] = 255
    return paddle.to_tensor(label)


def _cross_entropy(logits: np.ndarray, label: np.ndarray) -> float:
    exponents = np.exp(logits)
    chosen = np.take_along_axis(exponents, np.where(label == 255, 0, label)[:, None], axis=1)[:, 0]
    return float(-np.log(chosen / exponents.sum(axis=1))[label != 255].mean())


def test_cross_entropy_is_the_mean_over_the_pixels_that_are_not_ignored() -> None:
    logits, label = _logits(), _label()
    loss = segmentation_loss([logits], label, build_losses({"types": [CROSS_ENTROPY], "coef": [1.0]}))
    assert loss.shape == []
    assert float(loss) == pytest.approx(_cross_entropy(logits.numpy(), label.numpy()), rel=1e-5)


def test_one_type_stands_for_all_heads_with_their_weights() -> None:
    logits, label = _logits(), _label()
    one = float(segmentation_loss([logits], label, build_losses({"types": [CROSS_ENTROPY], "coef": [1]})))
    both = segmentation_loss([logits, logits], label, build_losses({"types": [CROSS_ENTROPY], "coef": [1, 0.4]}))
    assert float(both) == pytest.approx(1.4 * one, rel=1e-6)


def test_mixed_loss_is_the_weighted_sum_of_its_parts() -> None:
    logits, label = _logits(), _label()
    lovasz = {"_target_": f"{SEG}.LovaszSoftmaxLoss"}
    mixed = {"_target_": f"{SEG}.MixedLoss", "losses": [CROSS_ENTROPY, lovasz], "coef": [0.8, 0.2]}
    parts = [
        float(segmentation_loss([logits], label, build_losses({"types": [kind], "coef": [weight]})))
        for kind, weight in ((CROSS_ENTROPY, 0.8), (lovasz, 0.2))
    ]
    loss = segmentation_loss([logits], label, build_losses({"types": [mixed], "coef": [1.0]}))
    assert float(loss) == pytest.approx(sum(parts), rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "arguments", "classes"),
    [
        ("CrossEntropyLoss", {"weight": [1.0, 2.0, 0.5]}, 3),
        ("CrossEntropyLoss", {"avg_non_ignore": False}, 3),
        ("CrossEntropyLoss", {"top_k_percent_pixels": 0.5}, 3),
        ("OhemCrossEntropyLoss", {"min_kept": 50}, 3),
        ("BootstrappedCrossEntropyLoss", {"min_K": 50, "loss_th": 0.3}, 3),
        ("DiceLoss", {}, 3),
        ("LovaszSoftmaxLoss", {}, 3),
        ("RMILoss", {"num_classes": 3}, 3),
        ("FocalLoss", {}, 2),
        ("DetailAggregateLoss", {}, 1),
    ],
)
def test_paddlesegs_losses_give_a_number_and_a_gradient(kind: str, arguments: dict, classes: int) -> None:
    losses = build_losses({"types": [{"_target_": f"{SEG}.{kind}", **arguments}], "coef": [1.0]})
    logits = _logits(classes)
    loss = segmentation_loss([logits], _label(max(classes, 2)), losses)
    loss.backward()
    assert loss.shape == [] and np.isfinite(float(loss))
    assert np.isfinite(logits.grad.numpy()).all() and logits.grad.numpy().any()


def test_random_weights_of_a_loss_are_the_same_in_every_process() -> None:
    config = {"types": [{"_target_": f"{SEG}.DetailAggregateLoss"}], "coef": [1.0]}
    first, second, other = (build_losses(config, seed).types[0].fuse_kernel.numpy() for seed in (0, 0, 1))
    assert (first == second).all() and (first != other).any()


def test_number_of_losses_that_is_not_the_number_of_heads_is_told() -> None:
    losses = build_losses({"types": [CROSS_ENTROPY], "coef": [1.0]})
    with pytest.raises(UserError, match=r"is for 1 heads, and the network has 2 in training: give model\.loss\.coef 2"):
        segmentation_loss([_logits(), _logits()], _label(), losses)


def test_logits_that_a_loss_cannot_take_are_told_by_shape() -> None:
    losses = build_losses({"types": [{"_target_": f"{SEG}.FocalLoss"}], "coef": [1.0]})
    with pytest.raises(UserError, match=r"model\.loss: FocalLoss cannot take logits of 2x3x16x16: .* should be 2"):
        segmentation_loss([_logits()], _label(), losses)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"types": [CROSS_ENTROPY] * 2, "coef": [1.0, 0.4, 0.4]}, "2 types and 3 coef"),
        ({"types": [CROSS_ENTROPY]}, "give it types and coef"),
        ({"types": [CROSS_ENTROPY], "coefs": [1.0]}, "give it types and coef"),
        ({"types": [{"_target_": f"{SEG}.CrossEntropy"}], "coef": [1.0]}, r"types\[0\]._target_.*CrossEntropyLoss"),
        ({"types": [{**CROSS_ENTROPY, "ignore": 0}], "coef": [1.0]}, r"types\[0\]\.ignore: .* does not take it"),
    ],
)
def test_wrong_loss_config_is_told_by_its_key(config: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        build_losses(config)
