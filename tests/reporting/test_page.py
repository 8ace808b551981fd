import json
import os
import random
import shutil
import subprocess
import sys

import pytest

from segslim.errors import UserError
from segslim.reporting.jobs import BASIC_SWEEPER
from segslim.reporting.page import context, headline, write_page
from segslim.reporting.sections import smoothed
from segslim.reporting.sweep import write_sweep
from tests.command import ROOT
from tests.reporting.reader import Reader, external
from tests.reporting.sample import sample_report, write_run

HYDRA = {
    "runtime": {"config_sources": [{"provider": "command-line", "path": "/mine"}]},
    "job": {"config_name": "config"},
    "overrides": {"hydra": ["hydra.mode=MULTIRUN"], "task": ["compress.ratio=0.1,0.2"]},
    "sweeper": {"_target_": BASIC_SWEEPER, "params": {"a": "1,2"}},
}
HOSTILE = "<script>alert(1)</script><img src=http://evil/x onerror=alert(2)>\"'&{{7*7}}"


def _page(folder, report):
    return write_page(write_run(folder / "run", report)).read_text(encoding="utf-8")


def test_the_page_needs_nothing_beside_it_and_holds_every_figure(tmp_path):
    page = _page(tmp_path, sample_report(tmp_path / "store"))
    assert not external(page)
    text = Reader(page).text
    for figure in ("0.8123", "0.7911", "-0.0212", "169.25 M", "135.38 M", "885.91 k", "3.65 MB", "9.91 ms", "7.93 ms"):
        assert figure in text, figure
    for figure in ("-20.0%", "-36.7%", "-36.3%", "-20.1%", "0.715", "openvino 2026.4.1, 2 threads, float32", "seed 7"):
        assert figure in text, figure
    assert "uv run run.py compress=prune compress.ratio=0.2" in text and "onnx" in text and "a processor" in text
    assert "48 / 64" in text and "backbone.layer7.conv" in text


def test_pictures_are_embedded_and_not_larger_than_shown(tmp_path):
    page = _page(tmp_path, sample_report(tmp_path / "store"))
    images = [address for address in Reader(page).addresses if address.startswith("data:image/")]
    assert len(images) == 5 + 1  # of the preview, and the sheet of samples
    assert page.count("<svg") == 4  # sensitivity, latency, loss, mIoU


def test_a_page_without_its_artifacts_says_so_and_shows_the_rest(tmp_path):
    text = Reader(_page(tmp_path, sample_report())).text
    assert "deleted: data, analyze" in text
    assert "0.7911" in text and "Predictions" not in text and "uv run run.py" in text


def test_a_report_of_an_earlier_version_still_has_a_page(tmp_path):
    old = ("strategy", "model", "dataset", "seed", "stages", "baseline", "compressed", "change")
    report = {key: value for key, value in sample_report().items() if key in old}
    for role in ("baseline", "compressed"):
        del report[role]["session"]
    write_run(tmp_path / "run", report, overrides=[])
    assert "0.7911" in write_page(tmp_path / "run").read_text(encoding="utf-8")


def test_names_are_text_whatever_they_hold(tmp_path):
    report = sample_report(tmp_path / "store", model=HOSTILE, dataset=HOSTILE, advice=[HOSTILE], overrides=[HOSTILE])
    report["classes"] = [HOSTILE, "</style>", "</title>"]
    report["packages"] = {HOSTILE: HOSTILE}
    report["stages"][0] |= {"name": HOSTILE, "result": HOSTILE}
    for role in ("baseline", "compressed"):
        report[role]["engine"] = report[role]["session"]["name"] = HOSTILE
    for file, key in (("analyze/sensitivity.json", "losses"), ("preview/pictures.json", "images")):
        content = json.loads((tmp_path / "store" / file).read_text())
        if key == "losses":
            content[key] = {HOSTILE: {"0.5": 0.1}}
        else:
            content[key][0]["name"] = HOSTILE
        (tmp_path / "store" / file).write_text(json.dumps(content))
    page = _page(tmp_path, report)
    reader = Reader(page)
    assert page.count("<script") == 1 and not reader.handlers  # its own, which holds no value
    assert not [address for address in reader.addresses if not address.startswith("data:")]
    assert reader.text.count("{{7*7}}") >= 8 and "49" not in reader.text


@pytest.mark.parametrize(
    ("change", "interval", "tone", "words"),
    [
        (-0.2006, [-0.22, -0.18], "good", ["Faster on openvino", "20.1% less time", "mIoU -0.0212"]),
        (0.05, [0.03, 0.07], "bad", ["Not faster on openvino", "5.0% more time"]),
        (-0.2006, [-0.4, 0.1], "plain", ["No measurable difference"]),
        (None, [None, None], "plain", ["not measured"]),
    ],
)
def test_the_first_line_says_whether_it_became_faster(change, interval, tone, words):
    report = sample_report()
    report["change"] |= {"latency": change, "latency_interval": interval}
    found, first, _ = headline(report)
    assert found == tone and all(word in first for word in words), first


def test_advice_stands_right_below_the_first_line(tmp_path):
    report = sample_report(advice=["engine=onnxruntime would be faster"], warnings=["no pixel has the class [1]"])
    text = Reader(_page(tmp_path, report)).text
    assert "Warning: no pixel has the class [1]" in text
    assert text.index("engine=onnxruntime would be faster") < text.index("parameters")


def test_the_dense_network_alone_is_not_compared(tmp_path):
    report = sample_report(strategy="none")
    report["change"] = dict.fromkeys(report["change"], 0.0)
    text = Reader(_page(tmp_path, report)).text
    assert "nothing was compressed" in text and "from 0.8123" not in text and "faster" not in text.lower()


def test_an_int8_file_is_shown_with_its_precision_and_its_parity(tmp_path):
    found = {"reference": "float", "images": 50, "miou_reference": 0.8, "miou_deployed": 0.79, "equal_pixels": 0.995}
    found["miou_float"] = 0.792
    report = sample_report(parity=found)
    report["compressed"]["precision"] = "int8 (float32)"
    text = Reader(_page(tmp_path, report)).text
    assert "mIoU -0.0100 from the float network, 99.50% of the pixels equal; -0.0020 from the same file" in text
    assert "2 threads, float32 → openvino 2026.4.1, 2 threads, int8 (float32)" in text


def test_layers_that_were_solved_for_are_shown_with_their_errors_and_others_with_the_reason(tmp_path):
    rows = [
        {"layer": "head.conv", "before": 0.512, "after": 0.034, "left": ""},
        {"layer": "stem", "before": 0.077, "after": 0.077, "left": "the images are all alike"},
    ]
    text = Reader(_page(tmp_path, sample_report(reconstruction=rows))).text
    assert "1 of 2 were left as they were" in text
    assert all(words in text for words in ("head.conv", "0.512", "0.034", "stem", "the images are all alike"))


def test_figures_that_were_not_measured_are_dashes(tmp_path):
    report = sample_report()
    for role in ("baseline", "compressed"):
        report[role] |= dict.fromkeys(("miou", "class_iou", "flops", "latency_ms", "engine", "session"))
    report["change"] = dict.fromkeys(report["change"])
    assert "not measured" in Reader(_page(tmp_path, report)).text


def test_long_curves_are_means_of_neighbours():
    points = [(float(i), float(i % 2)) for i in range(1000)]
    short = smoothed(points, 100)
    assert len(short) == 100 and short[0] == (4.5, 0.5)
    assert smoothed(points[:50], 100) == points[:50]


def test_the_curves_that_stand_out_are_the_most_and_the_least_sensitive(tmp_path):
    marked = context(sample_report(tmp_path / "store"))["sensitivity"]["marked"]
    warm, cool = ([name for name, kind in marked.items() if colour in kind] for colour in ("warm", "cool"))
    assert warm == [f"backbone.layer{n}.conv" for n in (7, 6, 5)]
    assert sorted(cool) == [f"backbone.layer{n}.conv" for n in (0, 1, 2)]


def test_what_was_pruned_without_an_analysis_is_shown_without_curves(tmp_path):
    report = sample_report(tmp_path / "store")
    (tmp_path / "store" / "analyze" / "sensitivity.json").unlink()
    text = Reader(_page(tmp_path, report)).text
    assert "48 / 64" in text and "mean loss" not in text


@pytest.mark.parametrize("missing", ["data", "analyze", "prune", "retrain", "benchmark", "preview"])
def test_any_one_artifact_may_be_gone(missing, tmp_path):
    report = sample_report(tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / missing)
    assert f"deleted: {missing}." in Reader(_page(tmp_path, report)).text


def test_without_a_report_the_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"report\.json: cannot be read"):
        write_page(tmp_path)


def test_the_command_makes_the_page_again(tmp_path):
    run = write_run(tmp_path / "run", sample_report(tmp_path / "store"))
    for module in (["segslim.reporting"], ["segslim", "report"]):
        command = [sys.executable, "-m", *module]
        answer = subprocess.run([*command, str(run)], cwd=ROOT, capture_output=True, text=True, check=True)
        assert answer.stdout.strip() == str(run / "report.html") and (run / "report.html").exists()
    answer = subprocess.run([*command, str(tmp_path / "nowhere")], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1


WEIRD = (None, [], {}, "x", "\x00", -1, 1e999, [[]], {"a": [1]}, "/dev/zero", True)


def _places(node, path=()):
    """Every place in plain data."""
    for key, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*path, key)
        yield from _places(child, (*path, key))


def test_whatever_stands_in_a_report_or_its_artifacts_there_is_a_page_or_one_line(tmp_path, random_seed):
    generator, refused = random.Random(random_seed), 0
    whole = sample_report(tmp_path / "store")
    files = list((tmp_path / "store").rglob("*.json"))
    write_run(tmp_path / "run", whole)
    (tmp_path / "multirun.yaml").write_text(json.dumps({"hydra": HYDRA}))
    for _ in range(16):
        file = generator.choice([tmp_path / "run" / "report.json", tmp_path / "multirun.yaml", *files])
        before = file.read_text()
        content = json.loads(before)
        *path, last = generator.choice(list(_places(content)))
        node = content
        for part in path:
            node = node[part]
        node[last] = generator.choice(WEIRD)
        file.write_text(json.dumps(content))
        for write in (lambda: write_page(tmp_path / "run"), lambda: write_sweep(tmp_path)):
            try:
                write()
            except UserError as error:
                refused += 1
                assert "\n" not in str(error) and str(tmp_path) in str(error)
        file.write_text(before)
    assert refused < 32


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["retrain/curve.csv", "preview/0-label.png", "data/samples.png", "data/summary.json"])
def test_a_pipe_in_place_of_an_artifacts_file_is_one_line(tmp_path, name):
    write_run(tmp_path / "run", sample_report(tmp_path / "store"))
    (tmp_path / "store" / name).unlink()
    os.mkfifo(tmp_path / "store" / name)
    with pytest.raises(UserError, match=r"report\.json: no page can be drawn of it \(.*no regular file"):
        write_page(tmp_path / "run")
