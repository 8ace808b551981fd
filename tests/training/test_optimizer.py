import dataclasses
from typing import Any, Literal

import numpy as np
import pytest

from segslim.errors import UserError
from segslim.training.losses import build_losses, segmentation_loss
from segslim.training.optimizer import RELATIVE_STEP, FitOptions, Optimizer, learning_rate, relative_rate
from tests.training.toy import CROSS_ENTROPY, paddle, toy_batch, toy_network

OPTIONS = FitOptions(iters=4, learning_rate=0.5, momentum=0.9, weight_decay=0.1)
LOSSES = build_losses({"types": [CROSS_ENTROPY], "coef": [1.0]})


class OneLayer(paddle.nn.Layer):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 2, 1, bias_attr=False)

    def forward(self, image: Any) -> list[Any]:
        return [self.conv(image)]


def _gradient(network: OneLayer, batch: dict[str, np.ndarray]) -> np.ndarray:
    segmentation_loss(network(paddle.to_tensor(batch["img"])), paddle.to_tensor(batch["label"]), LOSSES).backward()
    gradient = network.conv.weight.grad.numpy().copy()
    network.clear_gradients()
    return gradient


def test_steps_are_sgd_with_momentum_and_weight_decay() -> None:
    """v = m v + (g + d w), w = w - rate v, as SGD with momentum is written in the literature."""
    network, twin = OneLayer(), OneLayer()
    twin.conv.weight.set_value(network.conv.weight.numpy())
    optimizer, velocity = Optimizer(network, LOSSES, OPTIONS), 0.0
    for iteration in range(4):
        optimizer.step(toy_batch(iteration), iteration)
        weight = twin.conv.weight.numpy()
        velocity = 0.9 * velocity + _gradient(twin, toy_batch(iteration)) + 0.1 * weight
        twin.conv.weight.set_value(weight - np.float32(learning_rate(iteration, OPTIONS)) * velocity)
    np.testing.assert_allclose(network.conv.weight.numpy(), twin.conv.weight.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(optimizer.state()["velocity/conv.weight"], velocity, rtol=1e-4, atol=1e-6)


def test_second_optimizer_of_a_network_starts_without_momentum() -> None:
    network = OneLayer()
    Optimizer(network, LOSSES, OPTIONS).step(toy_batch(0), 0)
    weight, again = network.conv.weight.numpy().copy(), Optimizer(network, LOSSES, OPTIONS)
    gradient = _gradient(network, toy_batch(1))
    again.step(toy_batch(1), 1)
    np.testing.assert_allclose(again.state()["velocity/conv.weight"], gradient + 0.1 * weight, rtol=1e-4, atol=1e-6)


def test_adams_steps_are_those_of_the_paper() -> None:
    """Kingma and Ba, 2015 (arXiv:1412.6980), algorithm 1, with an L2 penalty."""
    network, twin = OneLayer(), OneLayer()
    twin.conv.weight.set_value(network.conv.weight.numpy())
    options = dataclasses.replace(OPTIONS, optimizer="adam", learning_rate=0.01)
    optimizer, first, second = Optimizer(network, LOSSES, options), 0.0, 0.0
    for iteration in range(4):
        optimizer.step(toy_batch(iteration), iteration)
        weight = twin.conv.weight.numpy()
        gradient = _gradient(twin, toy_batch(iteration)) + 0.1 * weight
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        corrected = first / (1 - 0.9 ** (iteration + 1)), second / (1 - 0.999 ** (iteration + 1))
        step = learning_rate(iteration, options) * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
        twin.conv.weight.set_value((weight - step).astype(np.float32))
    np.testing.assert_allclose(network.conv.weight.numpy(), twin.conv.weight.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "accumulators"), [("sgd", 1), ("adam", 4)])
def test_the_state_is_restored_by_name_in_the_state_dict(kind: Literal["sgd", "adam"], accumulators: int) -> None:
    """Of a network whose auxiliary head had no gradient before, and has one from then on."""
    options = dataclasses.replace(OPTIONS, optimizer=kind)
    networks = toy_network(), toy_network()
    one_head, two_heads = (build_losses({"types": [CROSS_ENTROPY], "coef": coef}) for coef in ([1.0], [1.0, 0.4]))
    before = Optimizer(networks[0], one_head, options)
    networks[0].eval()
    before.step(toy_batch(0), 0)
    assert len(before.state()) == accumulators * len(["stem.0", "stem.1", "head"]) * 2
    source = networks[0].state_dict()
    for name, tensor in networks[1].state_dict().items():
        tensor.set_value(source[name].numpy())
    optimizers = before, Optimizer(networks[1], two_heads, options)
    optimizers[1].restore(before.state(), before.scaler_state())
    before._losses = two_heads
    for network in networks:
        network.train()
    for iteration in (1, 2):
        assert len({optimizer.step(toy_batch(iteration), iteration) for optimizer in optimizers}) == 1
    first, second = (optimizer.state() for optimizer in optimizers)
    assert first.keys() == second.keys() and len(first) == accumulators * 8
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_loss_that_is_no_number_is_an_error_and_changes_no_parameter(bad: float) -> None:
    network = OneLayer()
    before, batch = network.conv.weight.numpy().copy(), toy_batch(0)
    batch["img"][0, 0, 0, 0] = bad
    with pytest.raises(UserError, match=r"(nan|inf) at iteration 3: .*learning_rate .*0\.5"):
        Optimizer(network, LOSSES, OPTIONS).step(batch, 2)
    np.testing.assert_array_equal(network.conv.weight.numpy(), before)


SCHEDULE = FitOptions(iters=100, learning_rate=0.1, power=0.9)


def test_rate_starts_at_the_given_one_and_decays_to_nearly_nothing() -> None:
    assert learning_rate(0, SCHEDULE) == 0.1
    assert learning_rate(50, SCHEDULE) == pytest.approx(0.1 * 0.5**0.9)
    assert 0 < learning_rate(99, SCHEDULE) < 0.01 * 0.1 * 2


def test_warmup_climbs_linearly_to_the_given_rate_and_decay_starts_there() -> None:
    options = dataclasses.replace(SCHEDULE, warmup_iters=4)
    assert [learning_rate(at, options) for at in range(5)] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    assert learning_rate(5, options) < 0.1


def test_training_shorter_than_its_warmup_has_a_rate_everywhere() -> None:
    options = FitOptions(iters=3, learning_rate=0.1, warmup_iters=10)
    assert [learning_rate(at, options) for at in range(3)] == pytest.approx([0.01, 0.02, 0.03])


def test_adams_rate_is_a_quarter_of_a_cosine_each_half() -> None:
    options = dataclasses.replace(SCHEDULE, optimizer="adam", warmup_iters=20)
    assert [learning_rate(at, options) for at in (19, 20, 60, 100)] == pytest.approx([0.1, 0.1, 0.05, 0.0])


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_the_relative_rate_is_a_share_of_the_weights(scale: float) -> None:
    network = toy_network()
    layers = [layer.weight for layer in (network.stem[0], network.head, network.auxiliary)]
    for weight, size in zip(layers, (1.0, 2.0, 30.0), strict=True):
        weight.set_value(paddle.full(weight.shape, scale * size))
    assert relative_rate(network) == pytest.approx(RELATIVE_STEP * scale * 2.0)


SCHEDULERS = {
    "PolynomialDecay": {"end_lr": 1e-3, "power": 0.9},
    "CosineAnnealingDecay": {"eta_min": 1e-4},
    "StepDecay": {"step_size": 7, "gamma": 0.5},
    "MultiStepDecay": {"milestones": [6, 11], "gamma": 0.1},
    "OneCycleLR": {},
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_rates_are_those_that_paddles_schedulers_give_when_stepped(name: str) -> None:
    """By PaddleSeg's builder: a warmup from any rate, and the scheduler after it."""
    node = {"_target_": f"paddle.optimizer.lr.{name}", **SCHEDULERS[name]}
    options = FitOptions(iters=20, learning_rate=0.1, warmup_iters=4, warmup_start_lr=0.02, schedule=node)
    steps = {"PolynomialDecay": "decay_steps", "CosineAnnealingDecay": "T_max", "OneCycleLR": "total_steps"}
    given = {steps[name]: 16} if name in steps else {}
    rate = {"max_learning_rate" if name == "OneCycleLR" else "learning_rate": 0.1}
    inner = getattr(paddle.optimizer.lr, name)(**rate, **given, **SCHEDULERS[name])  # type: ignore[arg-type]
    expected = paddle.optimizer.lr.LinearWarmup(inner, 4, 0.02, 0.1)
    for iteration in range(20):
        assert learning_rate(iteration, options) == pytest.approx(expected.get_lr()), iteration
        expected.step()


OPTIMIZERS = {
    "paddle": {"_target_": "paddle.optimizer.AdamW", "weight_decay": 0.05, "beta2": 0.99},
    "paddleseg": {"_target_": "paddleseg.optimizers.optimizer.AdamW", "weight_decay": 0.05, "beta2": 0.99},
    "groups": {
        "_target_": "paddleseg.optimizers.optimizer.Momentum",
        "use_nesterov": True,
        "weight_decay": 0.1,
        "custom_cfg": [{"name": "head", "lr_mult": 10.0}, {"name": "stem.1", "weight_decay_mult": 0.0}],
        "grad_clip_cfg": {"name": "ClipGradByGlobalNorm", "clip_norm": 0.5},
    },
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_node_gives_the_steps_of_that_optimizer_and_resumes_bit_for_bit(name: str) -> None:
    options = dataclasses.replace(OPTIONS, optimizer=OPTIMIZERS[name], iters=8)
    networks = [toy_network() for _ in range(2)]
    source = networks[0].state_dict()
    for tensor_name, tensor in networks[1].state_dict().items():
        tensor.set_value(source[tensor_name].numpy())
    losses = build_losses({"types": [CROSS_ENTROPY], "coef": [1.0, 0.4]})
    first, second = (Optimizer(network, losses, options) for network in networks)
    for iteration in range(2):
        first.step(toy_batch(iteration), iteration)
    for tensor_name, tensor in networks[1].state_dict().items():
        tensor.set_value(source[tensor_name].numpy())
    second.restore(first.state(), first.scaler_state())
    for iteration in (2, 3):
        assert first.step(toy_batch(iteration), iteration) == second.step(toy_batch(iteration), iteration)
    for ours, theirs in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_paddlesegs_and_paddles_adamw_make_the_same_steps() -> None:
    """Both are decoupled (Loshchilov and Hutter, 2019): w - rate d w, and Adam's step."""
    weights = []
    for name in ("paddle", "paddleseg"):
        paddle.seed(3)
        network = OneLayer()
        optimizer = Optimizer(network, LOSSES, dataclasses.replace(OPTIONS, optimizer=OPTIMIZERS[name]))
        optimizer.step(toy_batch(0), 0)
        weights.append(network.conv.weight.numpy())
    np.testing.assert_array_equal(*weights)


def test_a_schedule_that_needs_its_past_is_refused() -> None:
    schedule = {"_target_": "paddle.optimizer.lr.ReduceOnPlateau"}
    with pytest.raises(UserError, match=r"train\.schedule\._target_=.*ReduceOnPlateau"):
        learning_rate(0, dataclasses.replace(SCHEDULE, schedule=schedule))
