import csv
import json
import math
import re
import shlex
import subprocess
import sys

import pytest
import yaml

from segslim.errors import UserError
from segslim.reporting.jobs import BASIC_SWEEPER, MOST_JOBS, SEARCH, is_sweep, read_jobs
from segslim.reporting.metrics import FIGURES, figure_value
from segslim.reporting.sweep import write_sweep
from segslim.reporting.sweep_page import MOST_COLUMNS, charted_networks, context, headline, on_front
from tests.command import ROOT
from tests.reporting.reader import Reader, external
from tests.reporting.sample import sample_report, write_overrides, write_run

HOSTILE = "<script>alert(1)</script>,\"'\n[bold]{{7*7}}"
RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5)


def _overrides(ratio):
    return ["compress=prune", f"compress.ratio={ratio}"]


def _report(ratio, folder=None, **changed):
    report = sample_report(folder, overrides=_overrides(ratio), **changed)
    report["compressed"]["latency_ms"] = {**report["compressed"]["latency_ms"], "quickest": 10 - 10 * ratio}
    report["change"]["latency"] = (10 - 10 * ratio) / 10.02 - 1
    report["compressed"]["miou"] = 0.8 - ratio * 0.2
    return report


@pytest.fixture
def sweep(tmp_path):
    """Two jobs are done, one failed, one was killed and one has not begun."""
    folder = tmp_path / "sweep"
    for number, ratio in ((0, 0.1), (1, 0.2)):
        write_run(folder / str(number), _report(ratio, tmp_path / f"store{number}"))
        (folder / str(number) / "report.html").touch()
    write_overrides(folder / "2", _overrides(0.3))
    command = "uv run run.py compress.ratio=0.3"
    failure = {"error": f"cannot {HOSTILE}", "command": command, "overrides": _overrides(0.3)}
    (folder / "2" / "failure.json").write_text(json.dumps(failure))
    write_overrides(folder / "3", _overrides(0.4))
    (folder / "3" / "report.json").write_text('{"torn')
    task = ["compress=prune", "compress.ratio=" + ",".join(map(str, RATIOS))]
    hydra = {"sweeper": {"_target_": BASIC_SWEEPER, "params": None}, "overrides": {"task": task}}
    (folder / "multirun.yaml").write_text(yaml.safe_dump({"hydra": hydra}))
    return folder


def _rows(folder):
    return list(csv.DictReader((folder / "sweep.csv").open(encoding="utf-8", newline="")))


def test_jobs_are_found_in_folders_of_any_depth(tmp_path):
    for name in ("fast_scnn/0", "unet/1"):
        write_run(tmp_path / name, _report(0.1, tmp_path / f"store-{name[-1]}"))
    assert [(job.name, job.status) for job in read_jobs(tmp_path)] == [("fast_scnn/0", "done"), ("unet/1", "done")]


def test_every_job_has_a_status_whatever_became_of_it(sweep):
    jobs = read_jobs(sweep)
    statuses = {job.own: job.status for job in jobs}
    found = ("done", "done", "failed", "unfinished", "not begun")
    assert statuses == {(f"compress.ratio={r}",): status for r, status in zip(RATIOS, found, strict=True)}
    assert jobs[-1].command == "uv run run.py compress=prune compress.ratio=0.5"


def test_the_page_of_a_half_done_sweep_shows_all_jobs_and_needs_nothing_beside_it(sweep):
    write_sweep(sweep)
    page = (sweep / "sweep.html").read_text(encoding="utf-8")
    assert not external(page)
    reader = Reader(page)
    assert "5 jobs: 2 done, 1 failed, 1 unfinished, 1 not begun" in reader.text
    for ratio in RATIOS:
        assert f"compress.ratio={ratio}" in reader.text
    assert "uv run run.py compress.ratio=0.3" in reader.text and "0.7600" in reader.text
    assert page.count("<script") == 1 and "{{7*7}}" in reader.text
    assert reader.addresses.count("0/report.html") == 1 + 3  # in the table, and at its dot in each chart
    assert page.count("<svg") == 3 + 2  # three costs, and a sensitivity for each store


def test_the_screen_shows_the_table_and_what_runs_a_failed_job_alone(sweep, capsys):
    write_sweep(sweep)
    shown = capsys.readouterr().out
    assert "compress.ratio=0.1" in shown and "unfinished" in shown and "not begun" in shown
    assert "job 2 failed: cannot <script>" in shown and "alone: uv run run.py compress.ratio=0.3" in shown


def test_the_csv_reads_back_to_the_figures_of_the_reports(sweep):
    write_sweep(sweep)
    rows = _rows(sweep)
    assert [row["status"] for row in rows] == ["done", "done", "failed", "unfinished", "not begun"]
    for row, ratio in zip(rows, RATIOS, strict=True):
        assert shlex.split(row["overrides"]) == _overrides(ratio)
    assert rows[2]["error"] == f"cannot {HOSTILE}"
    for number, row in enumerate(rows[:2]):
        report = json.loads((sweep / str(number) / "report.json").read_text())
        for name in FIGURES:
            value = figure_value(report, name)
            assert row[name] == "" if math.isnan(value) else float(row[name]) == value, name


def test_hostile_overrides_survive_the_csv(tmp_path):
    write_run(tmp_path / "s" / "0", _report(0.1), overrides=[HOSTILE, "+x=1"])
    write_run(tmp_path / "s" / "1", _report(0.2), overrides=["+x=1"])
    write_sweep(tmp_path / "s")
    assert shlex.split(_rows(tmp_path / "s")[0]["overrides"]) == [HOSTILE, "+x=1"]
    assert (tmp_path / "s" / "sweep.html").read_text().count("<script") == 1


@pytest.mark.parametrize("typed", ["=cmd|'/C calc'!A0", "+x=1", "-1+1", "@SUM(1)", "\t=1"])
def test_text_that_a_spreadsheet_would_compute_is_quoted(tmp_path, typed):
    write_run(tmp_path / "s" / "0", _report(0.1), overrides=[typed])
    write_sweep(tmp_path / "s")
    cells = [
        cell for row in csv.reader((tmp_path / "s" / "sweep.csv").open(encoding="utf-8", newline="")) for cell in row
    ]
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "@", "\t") or re.match(r"-\D", cell)]


def _write_timed(folder, number, before, after, miou=0.7, engine="openvino"):
    report = _report(0.1 * number)
    report["baseline"]["session"]["name"], report["compressed"]["miou"] = engine, miou
    report["baseline"]["latency_ms"]["quickest"], report["compressed"]["latency_ms"]["quickest"] = before, after
    report["change"]["latency"] = after / before - 1
    write_run(folder / str(number), report)


def test_what_another_network_beats_in_both_is_not_on_the_front(tmp_path):
    for number, (mean, miou) in enumerate(((5.0, 0.7), (6.0, 0.6), (7.0, 0.75), (11.0, 0.5))):
        _write_timed(tmp_path, number, 10.02, mean, miou=miou)
    assert on_front(read_jobs(tmp_path)) == {"0", "2"}


def test_a_machine_of_half_the_speed_makes_no_network_worse(tmp_path):
    """The first job's machine took twice the time for both; by its own baseline its network is the faster one."""
    for number, (before, after, miou) in enumerate(((20.0, 10.0, 0.7), (10.0, 8.0, 0.6))):
        _write_timed(tmp_path, number, before, after, miou=miou)
    jobs = read_jobs(tmp_path)
    assert [network.measured["latency_ms"]["quickest"] for network in charted_networks(jobs)] == pytest.approx(
        [15, 7.5, 12]
    )
    assert on_front(jobs) == {"0"}


def test_what_was_timed_beside_other_jobs_is_marked_and_on_no_front(tmp_path, capsys):
    for number, miou in enumerate((0.7, 0.72, 0.74)):
        _write_timed(tmp_path, number, 10.0, 5.0 + number, miou=miou)
    file = tmp_path / "2" / "report.json"
    report = json.loads(file.read_text())
    file.write_text(json.dumps({**report, "timed": {"at": "2026-01-01T00:00:00+00:00", "load": None, "beside": True}}))
    jobs = read_jobs(tmp_path)
    assert on_front(jobs) == {"0", "1"}
    assert headline(jobs)[1] == "2 of 2 compressed networks are faster than their baseline"
    write_sweep(tmp_path)
    assert capsys.readouterr().out.count("timed beside others") == 1
    text = Reader((tmp_path / "sweep.html").read_text()).text
    assert "timed beside others" in text and "--time" in text


def test_a_search_has_a_picture_of_its_course(sweep):
    course = {"figures": ["change.latency"], "directions": ["minimize"], "values": [[0.3], [-0.2], [0.1]]}
    (sweep / SEARCH).write_text(json.dumps(course))
    (drawn,) = context(sweep, read_jobs(sweep))["courses"]
    assert drawn.title == "change.latency" and len(drawn.marks) == 3
    write_sweep(sweep)
    assert "The course of the search" in Reader((sweep / "sweep.html").read_text()).text
    (sweep / SEARCH).write_text('{"figures": 3')
    assert context(sweep, read_jobs(sweep))["courses"] == []


def test_a_page_of_many_jobs_has_a_table_of_classes_with_those_on_the_front(tmp_path):
    for number in range(MOST_COLUMNS + 3):
        _write_timed(tmp_path, number, 10.0, 9.0 - 0.1 * number, miou=0.5 + 0.01 * number)
    jobs = read_jobs(tmp_path)
    table = context(tmp_path, jobs)["classes"]
    assert len(table["jobs"]) == MOST_COLUMNS and table["left_out"] == 3
    assert on_front(jobs) == {"14"} <= {job.name for job in table["jobs"]}


def test_engines_of_different_speed_stay_so(tmp_path):
    for number, (engine, before, after) in enumerate((("paddle", 20.0, 16.0), ("openvino", 10.0, 8.0))):
        _write_timed(tmp_path, number, before, after, engine=engine)
    shown = [
        network.measured["latency_ms"]["quickest"] for network in charted_networks(read_jobs(tmp_path)) if network.job
    ]
    assert shown == pytest.approx([16, 8])


def test_the_first_line_counts_what_became_faster(tmp_path):
    write_run(tmp_path / "0", _report(0.1))
    slower = _report(0.2)
    slower["change"] |= {"latency": 0.3, "latency_interval": [0.2, 0.4]}
    write_run(tmp_path / "1", slower)
    assert headline(read_jobs(tmp_path))[1] == "1 of 2 compressed networks are faster than their baseline"


def test_predictions_are_the_same_images_from_every_network_of_the_front(sweep):
    (strip,) = context(sweep, read_jobs(sweep))["predictions"]
    titles = [title for title, _ in strip["tiles"]]
    networks = [f"compress.ratio={ratio}{end}" for ratio in (0.1, 0.2) for end in ("", ": diff")]
    assert titles == ["image", "label", "baseline", *networks]


def test_a_sweep_of_which_nothing_is_done_has_a_page(tmp_path):
    write_overrides(tmp_path / "0", _overrides(0.1))
    assert is_sweep(tmp_path)
    write_sweep(tmp_path)
    assert "1 unfinished" in Reader((tmp_path / "sweep.html").read_text()).text


def test_jobs_without_an_end_are_counted_with_the_command_that_goes_on(tmp_path, capsys):
    """A key that was given twice makes no jobs of its own."""
    write_overrides(tmp_path / "0", ["seed=3", "compress.ratio=0.1"])
    task = ["seed=2", "compress.ratio=0.1,0.2", "seed=3"]
    typed = {"task": task, "hydra": ["hydra.mode=MULTIRUN", "hydra/launcher=ray"]}
    sweeper = {"_target_": BASIC_SWEEPER, "params": None}
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump({"hydra": {"sweeper": sweeper, "overrides": typed}}))
    write_sweep(tmp_path)
    shown = capsys.readouterr().out
    assert "2 of 2 jobs are not done (1 unfinished, 1 not begun)" in shown
    assert "uv run run.py -m hydra/launcher=ray seed=2 compress.ratio=0.1,0.2 seed=3" in shown


@pytest.mark.timeout(30)
def test_a_sweep_of_a_billion_jobs_is_listed_as_far_as_a_page_goes(tmp_path):
    typed = {"task": ["compress.ratio=range(0,1000000000)", "seed=1,2"]}
    sweeper = {"_target_": BASIC_SWEEPER, "params": None}
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump({"hydra": {"sweeper": sweeper, "overrides": typed}}))
    assert len(read_jobs(tmp_path)) == MOST_JOBS


def test_a_folder_of_neither_is_named(tmp_path):
    with pytest.raises(UserError, match="holds neither"):
        read_jobs(tmp_path)


def test_the_command_sums_up_a_sweep_without_paddle(sweep):
    command = [sys.executable, "-X", "importtime", "-m", "segslim.reporting", str(sweep)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Pareto" in answer.stdout and (sweep / "sweep.html").exists()
    assert "paddle" not in {line.rpartition("|")[2].strip() for line in answer.stderr.splitlines()}
