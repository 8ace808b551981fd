import math
from pathlib import Path
from typing import Any

import pytest

from segslim.deployment.cost import flops_by_weight, onnx_cost
from segslim.deployment.export import export_onnx
from segslim.errors import UserError
from tests.deployment.networks import TinyNetwork, build, logits_of, nn, paddle, random_images


def auxiliary(name: str) -> bool:
    """Whether a layer or parameter of PaddleSeg's networks belongs to a head that is not deployed."""
    return name.startswith("aux")


def multiply_accumulates_in_dygraph(network: Any, size: tuple[int, int]) -> int:
    """Counted by hooks on the convolutions as they run."""
    counted: list[int] = []

    def count(layer: Any, inputs: Any, output: Any) -> None:
        counted.append(math.prod(output.shape) * math.prod(layer.weight.shape[1:]))

    layers = [
        layer for name, layer in network.named_sublayers() if isinstance(layer, nn.Conv2D) and not auxiliary(name)
    ]
    hooks = [layer.register_forward_post_hook(count) for layer in layers]
    logits_of(network, random_images(1, 3, size[1], size[0]))
    for hook in hooks:
        hook.remove()
    return sum(counted)


def test_small_network_costs_what_the_hand_counts(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    export_onnx(TinyNetwork(), file, (1, 3, 20, 28))
    cost = onnx_cost(file, (28, 20))
    stem = (8 * 10 * 14) * (3 * 3 * 3)  # 28 x 20 at stride 2
    head = (3 * 10 * 14) * 16
    assert cost.flops == stem + head, "pooling to 3 x 3 bins, two products with matrices, counts for nothing"
    assert cost.params == (8 * 27 + 8) + (8 + 8) + 3 * 16
    assert cost.size_bytes == file.stat().st_size
    assert sum(flops_by_weight(file, (28, 20)).values()) == cost.flops


@pytest.mark.parametrize("name", ["fast_scnn", "bisenetv2"])
def test_network_costs_what_runs_in_dygraph(name: str, tmp_path: Path) -> None:
    network = build(name)
    file = tmp_path / "model.onnx"
    export_onnx(network, file, (1, 3, 100, 140))
    cost = onnx_cost(file, (140, 100))
    assert cost.flops == multiply_accumulates_in_dygraph(network, (140, 100))
    trained = [
        p for key, p in network.named_parameters() if not auxiliary(key) and not key.endswith(("_mean", "_variance"))
    ]
    assert cost.params == sum(math.prod(p.shape) for p in trained)


def test_dynamic_file_costs_the_same_as_one_of_that_size(tmp_path: Path) -> None:
    network = TinyNetwork()
    export_onnx(network, tmp_path / "dynamic.onnx", (None, 3, None, None))
    export_onnx(network, tmp_path / "fixed.onnx", (1, 3, 20, 28))
    dynamic, fixed = (onnx_cost(tmp_path / f"{name}.onnx", (28, 20)) for name in ("dynamic", "fixed"))
    assert (dynamic.flops, dynamic.params) == (fixed.flops, fixed.params)
    assert onnx_cost(tmp_path / "dynamic.onnx", (56, 40)).flops == 4 * fixed.flops


def test_linear_layers_and_matmuls_are_counted(tmp_path: Path) -> None:
    class Attention(nn.Layer):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 5)

        def forward(self, x: Any) -> list[Any]:
            tokens = self.linear(paddle.flatten(x, 2).transpose([0, 2, 1]))
            return [paddle.matmul(tokens, tokens, transpose_y=True)]

    file = tmp_path / "model.onnx"
    export_onnx(Attention(), file, (1, 3, 4, 6))
    cost = onnx_cost(file, (6, 4))
    assert cost.flops == 24 * 3 * 5 + 24 * 5 * 24
    assert cost.params == 3 * 5 + 5


def test_another_size_than_the_files_is_an_error(tmp_path: Path) -> None:
    export_onnx(TinyNetwork(), tmp_path / "model.onnx", (1, 3, 32, 64))
    with pytest.raises(UserError, match=r"64 x 32.*128 x 128"):
        onnx_cost(tmp_path / "model.onnx", (128, 128))
