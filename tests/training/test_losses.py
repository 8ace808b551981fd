"""Losses, distillation and gradients, against their definitions."""

import numpy as np
import pytest

from segslim.errors import UserError
from segslim.paddle_compat import arithmetic_of_integers_and_floats
from segslim.training.losses import (
    DISTILLATIONS,
    Distillation,
    Losses,
    build_losses,
    distillation_loss,
    fisher_gradients,
    gradients,
    segmentation_loss,
)
from tests.training.toy import CROSS_ENTROPY, paddle, state_of, toy_batch, toy_network

TWO_HEADS = {"types": [CROSS_ENTROPY], "coef": [1.0, 0.4]}
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


def test_number_of_losses_that_is_not_the_number_of_heads_is_refused() -> None:
    losses = build_losses({"types": [CROSS_ENTROPY], "coef": [1.0]})
    with pytest.raises(UserError, match=r"1 heads.* 2 .*model\.loss\.coef"):
        segmentation_loss([_logits(), _logits()], _label(), losses)


def test_logits_that_a_loss_cannot_take_are_refused_by_shape() -> None:
    losses = build_losses({"types": [{"_target_": f"{SEG}.FocalLoss"}], "coef": [1.0]})
    with pytest.raises(UserError, match=r"FocalLoss .*2x3x16x16.*should be 2"):
        segmentation_loss([_logits()], _label(), losses)


@pytest.mark.parametrize(
    ("config", "refusal"),
    [
        ({"types": [CROSS_ENTROPY] * 2, "coef": [1.0, 0.4, 0.4]}, "2 types and 3 coef"),
        ({"types": [CROSS_ENTROPY]}, "types and coef"),
        ({"types": [CROSS_ENTROPY], "coefs": [1.0]}, "coefs.* types and coef"),
        ({"types": [{"_target_": f"{SEG}.CrossEntropy"}], "coef": [1.0]}, r"types\[0\]._target_.*CrossEntropyLoss"),
        ({"types": [{**CROSS_ENTROPY, "ignore": 0}], "coef": [1.0]}, r"types\[0\]\.ignore: .* does not take it"),
    ],
)
def test_wrong_loss_config_is_refused_by_its_key(config: dict, refusal: str) -> None:
    with pytest.raises(UserError, match=refusal):
        build_losses(config)


def _array(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape or (2, 3, 4, 5)).astype(np.float32)


def _divergence(teacher: np.ndarray, student: np.ndarray, axis: tuple[int, ...], temperature: float) -> np.ndarray:
    """KL(p || q) by its definition, of the softmax over `axis`, in float64."""
    p, q = (np.exp(maps.astype(np.float64) / temperature) for maps in (teacher, student))
    p, q = p / p.sum(axis, keepdims=True), q / q.sum(axis, keepdims=True)
    return (p * np.log(p / q)).sum(axis)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(("kind", "axis"), [("logits", (1,)), ("channel_wise", (2, 3))])
def test_loss_is_the_mean_divergence_of_the_softened_distributions(
    kind: str, axis: tuple[int, ...], temperature: float
) -> None:
    student, teacher = _array(0), _array(1)
    expected = 0.7 * temperature**2 * _divergence(teacher, student, axis, temperature).mean()
    options = Distillation(kind, weight=0.7, temperature=temperature)
    value = distillation_loss(paddle.to_tensor(student), paddle.to_tensor(teacher), options)
    np.testing.assert_allclose(float(value), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", DISTILLATIONS)
def test_gradient_flows_to_the_student_only_and_a_student_that_equals_its_teacher_has_none(kind: str) -> None:
    for seed, scale in ((1, 1), (0, 100)):
        student, teacher = (paddle.to_tensor(scale * _array(at), stop_gradient=False) for at in (0, seed))
        value = distillation_loss(student, teacher, Distillation(kind, 1.0, 2.0))
        value.backward()
        assert teacher.grad is None
        assert (float(value) == 0) == (seed == 0) == (np.abs(student.grad.numpy()).max() < 1e-6)


def test_logits_of_another_shape_are_refused() -> None:
    with pytest.raises(UserError, match=r"2 x 3 x 4 x 5.* 2 x 4 x 4 x 5.*retrain\.distill"):
        distillation_loss(
            paddle.to_tensor(_array(0)), paddle.to_tensor(_array(0, 2, 4, 4, 5)), Distillation("logits", 1.0, 1.0)
        )


LOSSES = build_losses(TWO_HEADS)


def main_loss(network, batch):
    network.eval()
    image, label = (paddle.to_tensor(batch[key]) for key in ("img", "label"))
    return float(segmentation_loss(network(image), label, Losses(LOSSES.types[:1], LOSSES.coef[:1])))


def test_gradient_times_weight_is_what_the_loss_changes_by_at_first_order():
    network, batch = toy_network(), toy_batch(0)
    before, (found,) = main_loss(network, batch), gradients(network, [batch], LOSSES)
    head = network.state_dict()["head.weight"]
    for channel in range(8):
        dense, step = head.numpy().copy(), 0.02
        closed = dense.copy()
        closed[:, channel] *= 1 - step
        head.set_value(closed)
        change = (main_loss(network, batch) - before) / -step
        head.set_value(dense)
        assert change == pytest.approx((found["head.weight"] * dense)[:, channel].sum(), abs=2e-3)


def test_the_network_and_its_statistics_stay_and_each_batch_has_gradients_of_its_own():
    network = toy_network()
    network.train()
    before = state_of(network)
    one, two = gradients(network, [toy_batch(0), toy_batch(1)], LOSSES)
    (again,) = gradients(network, [toy_batch(1)], LOSSES)
    assert state_of(network) == before
    assert not np.allclose(one["stem.0.weight"], two["stem.0.weight"])
    assert all((again[name] == value).all() for name, value in two.items())  # nothing is drawn, nothing adds up


def test_drawn_labels_give_the_fisher_information_and_the_same_seed_the_same_draws():
    """Of the bias of a class it is the mean over draws of the sum of (p - y) / N, squared: sum of p (1 - p) / N^2."""
    network, image = toy_network(), toy_batch(0)["img"][:1]
    drawn = [found["head.bias"] for found in fisher_gradients(network, [image], draws=400, seed=3)]
    network.eval()
    p = paddle.nn.functional.softmax(network(paddle.to_tensor(image))[0], axis=1).numpy()[0].reshape(2, -1)
    np.testing.assert_allclose(np.square(drawn).mean(0), (p * (1 - p)).sum(1) / p.shape[1] ** 2, rtol=0.25)
    again = [found["head.bias"] for found in fisher_gradients(network, [image], draws=3, seed=3)]
    np.testing.assert_array_equal(again, drawn[:3])


def test_an_auxiliary_head_has_no_gradient():
    (found,) = gradients(toy_network(), [toy_batch(0)], LOSSES)
    assert "head.weight" in found and "auxiliary.weight" not in found


def test_a_loss_of_edges_gets_the_edges_that_paddlesegs_data_sets_give() -> None:
    from paddleseg.transforms.functional import mask_to_binary_edge

    label = np.zeros((2, 16, 16), np.int64)
    label[0, :, 8:] = 1
    edges = np.stack([mask_to_binary_edge(each, radius=2, num_classes=2) for each in label]).astype(np.int64)
    node = {"_target_": "paddleseg.models.BCELoss", "weight": "dynamic", "edge_label": True}
    losses = build_losses({"types": [CROSS_ENTROPY, node], "coef": [1.0, 2.0]})
    main, edge = paddle.randn([2, 2, 16, 16]), paddle.randn([2, 1, 16, 16])
    together = segmentation_loss([main, edge], paddle.to_tensor(label), losses)
    with arithmetic_of_integers_and_floats():
        alone = losses.types[0](main, paddle.to_tensor(label)) + 2 * losses.types[1](edge, paddle.to_tensor(edges))
    assert edges.any() and float(together) == pytest.approx(float(alone))


def test_maskformers_loss_gets_the_masks_of_the_classes() -> None:
    node = {"_target_": "paddleseg.models.MaskFormerLoss", "num_classes": 3, "eos_coef": 0.1}
    losses = build_losses({"types": [node], "coef": [1.0]})
    label = np.zeros((2, 16, 16), np.int64)
    label[:, 4:9], label[1, 0, 0] = 2, 255
    right, wrong = (
        {"pred_logits": paddle.zeros([2, 5, 4]), "pred_masks": paddle.full([2, 5, 16, 16], -8.0)} for _ in range(2)
    )
    for query, number in enumerate((0, 2)):
        for output, other in ((right, number), (wrong, 1)):
            output["pred_logits"][:, query, other] = 8.0
        right["pred_masks"][:, query] = paddle.to_tensor(np.where(label == number, 8.0, -8.0).astype(np.float32))
    if paddle.__version__.startswith("2."):
        with pytest.raises(UserError, match="use Paddle 3"):
            segmentation_loss([right], paddle.to_tensor(label), losses)
        return
    values = [float(segmentation_loss([each], paddle.to_tensor(label), losses)) for each in (right, wrong)]
    assert values[0] < 0.5 * values[1]
