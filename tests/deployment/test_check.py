from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from segslim.deployment.export import compare
from segslim.deployment.export import export_onnx
from segslim.errors import UserError
from tests.deployment.networks import TinyNetwork, logits_of, random_images

IMAGES = random_images(1, 3, 20, 28)


@pytest.fixture(scope="module")
def network() -> Any:
    return TinyNetwork()


@pytest.fixture(scope="module", params=["logits", "softmax", "argmax"])
def exported(
    request: pytest.FixtureRequest, network: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    file = tmp_path_factory.mktemp(request.param) / "model.onnx"
    export_onnx(network, file, (1, 3, 20, 28), request.param)
    return file, request.param


def test_logits_are_compared_whatever_the_output(exported: tuple[Path, str], network: Any) -> None:
    file, output = exported
    assert compare(file, output, lambda images: logits_of(network, images), [IMAGES]).relative < 1e-5
    shifted = compare(file, output, lambda images: logits_of(network, images) * 1.01, [IMAGES])
    assert shifted.relative == pytest.approx(0.01 / 1.01, rel=1e-2)
    assert shifted.equal_pixels == 1
    flipped = compare(file, output, lambda images: -logits_of(network, images), [IMAGES])
    assert flipped.equal_pixels < 0.5


def test_one_wrong_weight_is_seen(network: Any, tmp_path: Path) -> None:
    export_onnx(network, tmp_path / "model.onnx", (1, 3, 20, 28))
    model = onnx.load(tmp_path / "model.onnx")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == network.head.weight.name)
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] += 0.5
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, tmp_path / "model.onnx")
    assert compare(tmp_path / "model.onnx", "logits", lambda x: logits_of(network, x), [IMAGES]).relative > 1e-2


def test_other_shape_or_infinite_logits_are_errors(network: Any, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    export_onnx(network, file, (1, 3, 20, 28))
    with pytest.raises(UserError, match="the exported logits are"):
        compare(file, "logits", lambda images: logits_of(network, images)[:, :2], [IMAGES])
    with pytest.raises(UserError, match="not finite"):
        compare(file, "logits", lambda images: logits_of(network, images) * np.inf, [IMAGES])
