"""Sliding windows, scales and flips are PaddleSeg's, and the area under the ROC curve scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from segslim.errors import UserError
from segslim.evaluation.windows import Augmented, RocCurve, windows
from segslim.paddle_compat import import_paddleseg
from segslim.pipeline.plan import plan
from segslim.stages import STAGES
from segslim.stages.strategy import resolve
from tests.command import config

import_paddleseg()
import paddle  # noqa: E402  (after import_paddleseg)
from paddleseg.core.infer import aug_inference  # noqa: E402


class Network(paddle.nn.Layer):
    """What it says of a pixel depends on those around it, so that the place of a window counts."""

    def __init__(self):
        super().__init__()
        self.layers = paddle.nn.Sequential(
            paddle.nn.Conv2D(3, 8, 5, padding=2), paddle.nn.ReLU(), paddle.nn.Conv2D(8, 4, 5, padding=2)
        )

    def forward(self, image):
        return [self.layers(image)]


WAYS = {
    "windows that overlap": {"crop_size": (16, 12), "stride": (10, 7)},
    "windows larger than the image": {"crop_size": (64, 64), "stride": (8, 8)},
    "scales": {"scales": [0.5, 1.0, 1.75]},
    "flips": {"flips": ["horizontal", "vertical"]},
    "all of it": {"crop_size": (16, 12), "stride": (10, 7), "scales": [0.75, 1.5], "flips": ["horizontal"]},
}


@pytest.mark.parametrize("name", WAYS)
def test_logits_are_those_of_paddleseg(name):
    paddle.seed(0)
    network, way = Network(), WAYS[name]
    network.eval()
    image = np.random.default_rng(0).standard_normal((1, 3, 30, 42), np.float32)
    flips, scales = way.get("flips", []), way.get("scales", [1.0])
    options = {"is_slide": True, "crop_size": way["crop_size"], "stride": way["stride"]} if "crop_size" in way else {}
    with paddle.no_grad():
        _, expected = aug_inference(
            network, paddle.to_tensor(image), [], scales, "horizontal" in flips, "vertical" in flips, **options
        )
        ours = Augmented(**way).logits(lambda window: network(paddle.to_tensor(window))[0].numpy(), image)
    assert np.abs(ours - expected.numpy()).max() < 1e-4 * np.abs(expected.numpy()).max()


def test_a_network_of_one_size_gets_whole_windows_and_every_pixel_is_seen():
    shapes = set()

    def run(window):
        shapes.add(window.shape[2:])
        return window[:, :1]

    image = np.random.default_rng(0).random((1, 3, 10, 50), np.float32)
    logits = Augmented(crop_size=(16, 16), stride=(12, 12), fixed=True).logits(run, image)
    assert shapes == {(16, 16)}
    np.testing.assert_allclose(logits, image[:, :1], rtol=1e-6)
    assert windows(10, 50, (16, 16), (12, 12)) == [(0, left, 10, left + 16) for left in (0, 12, 24, 34)]


def test_a_stride_that_leaves_gaps_is_refused():
    with pytest.raises(UserError, match="stride"):
        Augmented(crop_size=(8, 8), stride=(9, 8))
    typed = config("compress=none", "evaluation.crop_size=[160,160]", "evaluation.stride=[161,160]")
    with pytest.raises(UserError, match=r"^evaluation\.stride="):
        plan(resolve(typed), STAGES)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_area_under_the_roc_curve_is_that_of_scikit_learn(classes):
    random = np.random.default_rng(0)
    curve, scores, labels = RocCurve(classes), [], []
    for _ in range(3):
        label = random.integers(0, classes, (12, 9))
        logits = random.standard_normal((1, classes, 12, 9)).astype(np.float32) + (
            label == np.arange(classes)[:, None, None]
        )
        ignored = random.random(label.shape) < 0.1
        curve.update(logits, np.where(ignored, 255, label), 255)
        exponentials = np.exp(logits[0].astype(np.float64))
        scores.append((exponentials / exponentials.sum(0)).transpose(1, 2, 0)[~ignored])
        labels.append(label[~ignored])
    theirs, label = np.concatenate(scores), np.concatenate(labels)
    expected = roc_auc_score(label, theirs[:, 1]) if classes == 2 else roc_auc_score(label, theirs, multi_class="ovr")
    assert curve.area() == pytest.approx(expected, abs=1e-4)
