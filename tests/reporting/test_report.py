import json
from types import SimpleNamespace

import pytest
from rich.console import Console

from segslim.pipeline.stage import BASELINE
from segslim.reporting.metrics import speed
from segslim.reporting.report import build_report
from segslim.reporting.terminal import comparison, verdict

BEFORE = {"miou": 0.80, "class_iou": [0.9, 0.7], "accuracy": 0.95, "kappa": 0.8, "dice": 0.88}
AFTER = {"miou": 0.79, "class_iou": [0.9, 0.68], "accuracy": 0.94, "kappa": 0.8, "dice": 0.87}
LATENCY = {"quickest": 9.9, "mean": 10.0, "median": 9.95, "p99": 12.0, "std": 0.4}


def _artifact(folder, **files):
    folder.mkdir()
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return SimpleNamespace(path=folder, manifest={"result": "done"})


@pytest.fixture
def report(tmp_path):
    def cost(flops):
        return {"flops": flops, "params": flops // 10, "size_bytes": flops // 5}

    engine = {"engine": "onnxruntime", "weights": "float32", "target": None, "precision": "float32"}
    artifacts = {
        BASELINE + "deployment": _artifact(tmp_path / "a", cost=cost(1000)),
        "deployment": _artifact(tmp_path / "b", cost=cost(800)),
        BASELINE + "metrics": _artifact(tmp_path / "c", metrics=BEFORE),
        "metrics": _artifact(tmp_path / "d", metrics=AFTER),
        BASELINE + "engine": _artifact(tmp_path / "e", engine=engine),
        "engine": _artifact(tmp_path / "f", engine={**engine, "engine": "openvino"}),
        "latency": _artifact(
            tmp_path / "g",
            latency={
                "baseline": LATENCY,
                "compressed": {**LATENCY, "quickest": 12.4, "mean": 12.5},
                "ratio": {"value": 1.25, "low": 1.2, "high": 1.31},
                "measured": {"at": "2026-11-24T12:00:00+00:00", "load": {"others": 0.0, "cores": 2}},
            },
        ),
    }
    recipe = {"identity": {"processor": "a fast one", "cores": 2}, "packages": {"onnx": "1.0", "absent": None}}
    steps = {kind: SimpleNamespace(fingerprint=kind, label=kind, recipe=recipe) for kind in artifacts}
    outcomes = [
        SimpleNamespace(step=steps[k], artifact=a, cached=False, seconds=1.0, warnings=()) for k, a in artifacts.items()
    ]
    config = SimpleNamespace(
        compress=SimpleNamespace(name="prune"),
        model=SimpleNamespace(name="unet"),
        dataset=SimpleNamespace(name="x", size=(8, 8), classes=None, colours=None, num_classes=2),
        seed=0,
    )
    return build_report(config, SimpleNamespace(results=steps), outcomes)


def test_changes_are_fractions_and_miou_a_difference(report):
    change = report["change"]
    assert change["flops"] == pytest.approx(-0.2) and change["params"] == pytest.approx(-0.2)
    assert change["latency"] == pytest.approx(0.25)
    assert change["miou"] == pytest.approx(-0.01)


def test_a_network_that_became_slower_is_called_not_faster(report):
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(comparison(report))
    console.print(verdict(report))
    text = console.export_text()
    assert "not faster on openvino: 25.0% more time" in text and "mIoU -0.0100" in text
    assert "0.8000" in text and "0.7900" in text and "-20.0%" in text


@pytest.mark.parametrize(
    ("low", "high", "found", "words"),
    [
        (-0.08, -0.03, "faster", "faster on openvino: 5.0% less time for an image (95 %: 3.0% to 8.0% less)"),
        (-0.06, -0.01, "unclear", "no measurable difference"),  # its end is less than the noise
        (-0.07, 0.02, "unclear", "(95 %: 7.0% less to 2.0% more)"),
        (0.03, 0.07, "slower", "not faster"),
    ],
)
def test_a_verdict_is_of_the_whole_interval(report, low, high, found, words):
    change = report["change"]
    change["latency"], change["latency_interval"] = (low + high) / 2, [low, high]
    change["latency"] = {(-0.08, -0.03): -0.05}.get((low, high), change["latency"])
    assert speed(report) == found
    assert words in str(verdict(report))


def test_the_report_has_the_keys_that_others_read(report):
    assert {"strategy", "model", "dataset", "stages", "baseline", "compressed", "change"} <= set(report)
    for measured in (report["baseline"], report["compressed"]):
        assert {"miou", "accuracy", "flops", "params", "size_bytes", "latency_ms", "engine"} <= set(measured)
    assert {"name", "fingerprint", "cached", "seconds"} <= set(report["stages"][0])


def test_the_report_says_what_it_was_measured_with_and_where_its_artifacts_are(report, tmp_path):
    assert report["machine"]["processor"] == "a fast one" and report["packages"] == {"onnx": "1.0"}
    assert report["artifacts"]["latency"] == str(tmp_path / "g")
    assert report["colours"] and report["classes"] is None
