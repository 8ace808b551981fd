"""Times of another machine: over ssh, where the connection may be cut, and by a file that is carried there."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from segslim.deployment.deployment import Deployment
from segslim.deployment.engines import Unreachable
from segslim.devices.board import Board
from segslim.devices.packed import Results, pack
from segslim.errors import UserError
from segslim.evaluation.latency import compare
from segslim.front import first as first_of
from segslim.hardware import conditions
from segslim.pipeline.plan import plan
from segslim.reporting.report import WANTED
from segslim.stages import stages_for
from segslim.stages.shared.sessions import ranked_engines, timed_sessions
from segslim.stages.strategy import resolve
from tests.command import QUICK_PRUNING, ROOT, TINY, config, last_report, segslim
from tests.deployment.small_onnx import random_images, write_onnx
from tests.devices.boards import SSHD, Boards, python_with

NO_SSHD = next(
    (f"no {name} here: nothing was timed over ssh" for name in ("ssh", "ssh-keygen") if not shutil.which(name)), None
)
over_ssh = pytest.mark.skipif(
    SSHD is None or NO_SSHD is not None, reason=NO_SSHD or "no sshd here (openssh-server): nothing was timed over ssh"
)
PRUNED = ("compress=prune_post", "compress.ratio=0.3", *QUICK_PRUNING, *TINY)


@pytest.fixture(scope="module")
def boards(tmp_path_factory):
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # what a service's start makes
    with Boards(tmp_path_factory.mktemp("boards")).serving() as made:
        yield made


@pytest.fixture
def pi(boards, monkeypatch):
    """The first board, as a new process meets it."""
    monkeypatch.setenv("PATH", boards.path)
    shutil.rmtree(boards.home("pi") / ".cache", ignore_errors=True)
    return Board("pi", str(boards.python))


@pytest.fixture
def networks(tmp_path):
    """(deployment, engine, precision), by the role."""
    for role, scale in (("baseline", 1.0), ("compressed", 2.0)):
        write_onnx(tmp_path / f"{role}.onnx", scale=scale)
    return {
        role: (Deployment.from_onnx(tmp_path / f"{role}.onnx"), "onnxruntime", "float32")
        for role in ("baseline", "compressed")
    }


@over_ssh
def test_a_board_gives_what_the_network_gives_and_says_what_it_is(pi, networks):
    options = config("engine.candidates=[openvino,onnxruntime]", "engine.threads=1")
    first, second = ranked_engines(networks["baseline"][0], random_images(), options, there=pi)
    assert (first.candidate.engine, first.excluded) == ("onnxruntime", None)
    assert first.agreement < 1e-5 and first.latency_ms > 0 and first.session["threads"] == 1
    assert second.candidate.engine == "openvino" and "not installed" in second.excluded
    assert pi.machine["board"] == "pi" and pi.machine["engines"].keys() == {"onnxruntime"}


@over_ssh
def test_rounds_go_on_where_the_connection_was_cut_and_end_in_one_line_where_it_stays_so(pi, boards, networks):
    with timed_sessions(networks, random_images(), config(), all_of_them=True, place=pi) as sessions:
        assert len(sessions["baseline"].turn(2, 0.0)) == 2
        with ThreadPoolExecutor() as pool:
            measured = pool.submit(compare, sessions["baseline"], sessions["compressed"], 1, 20, 0.02)
            boards.cut()
            baseline, compressed, _ = measured.result()
        assert (baseline.rounds, len(baseline.samples), len(compressed.samples)) == (10, 20, 20)
        pi.patience = ()
        boards.cut()
        with pytest.raises(Unreachable, match=r"benchmark\.host=pi: .*; the same command goes on when `ssh pi` works"):
            sessions["baseline"].turn(1, 0.0)
    pi.host = "nobody"
    with pytest.raises(Unreachable, match="nobody"):  # which is no reason to exclude an engine
        ranked_engines(networks["baseline"][0], random_images(), config("engine=onnxruntime"), there=pi)


@over_ssh
def test_a_transfer_goes_on_where_it_was_cut(pi, boards, tmp_path):
    file = tmp_path / "large.bin"
    file.write_bytes(np.random.default_rng(0).bytes(20_000_000))
    assert pi.machine
    with ThreadPoolExecutor() as pool:
        sent = pool.submit(pi.send, [file])
        while not (parts := [part for part in boards.home("pi").rglob("*.part") if part.stat().st_size > 100_000]):
            assert not sent.done()
        number = parts[0].stat().st_ino
        boards.cut()
        ((there,),) = sent.result()
    found = boards.home("pi") / there
    assert found.read_bytes() == file.read_bytes() and found.stat().st_ino == number
    changed = found.stat().st_mtime_ns
    assert Board("pi", str(boards.python)).send([file]) == [[there]] and found.stat().st_mtime_ns == changed


@over_ssh
@pytest.mark.long
def test_a_damaged_part_is_sent_again(pi, boards, networks):
    file = networks["baseline"][0].onnx_file
    there = boards.home("pi") / pi.send([file])[0][0]
    there.with_name(there.name + ".part").write_bytes(b"of something else")
    there.unlink()
    assert Board("pi", str(boards.python)).send([file]) and there.read_bytes() == file.read_bytes()


@over_ssh
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("benchmark.python={bare}", "benchmark.host=pi has none of onnxruntime: ssh pi .* -m pip install onnxruntime"),
        ("benchmark.python=python9", "benchmark.host=pi has no python9: benchmark.python="),
        ("benchmark.host=nobody", "benchmark.host=nobody: .*refused"),
    ],
)
def test_what_a_board_lacks_is_one_line_before_any_work(pi, boards, given, words):
    options = config(*PRUNED, "benchmark.host=pi", given.format(bare=boards.bare))
    with pytest.raises(UserError, match=words):
        plan(resolve(options), stages_for(options), WANTED)


@over_ssh
@pytest.mark.long
def test_two_boards_share_a_store_and_each_has_its_own_times(boards, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", boards.path)
    reports = []
    for host in ("pi", "jetson", "jetson"):
        done = segslim(*PRUNED, f"benchmark.host={host}", f"benchmark.python={boards.python}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        reports.append(last_report(tmp_path))
    made = [{stage["name"] for stage in report["stages"] if not stage["cached"]} for report in reports]
    assert {"choosing the engine", "select", "benchmark"} & made[1] and "train" not in made[1] and not made[2]
    assert [report["machine"]["board"] for report in reports] == ["pi", "jetson", "jetson"]
    assert reports[1]["compressed"]["latency_ms"] == reports[2]["compressed"]["latency_ms"]


@over_ssh
@pytest.mark.long
def test_a_front_goes_by_the_times_of_a_board(boards, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", boards.path)
    points = ("compress.front.points=2", "compress.front.precisions=[float32]", "compress.front.align=[1]")
    bound = ("compress.latency_ratio=0.9", "compress.soft=[latency_ratio]", "compress.reconstruct.images=8")
    where = ("benchmark.host=pi", f"benchmark.python={boards.python}")
    done = segslim("compress=front", *TINY, *points, *bound, *where, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    pages = [json.loads(file.read_text()) for file in tmp_path.rglob("points/*/report.json")]
    assert len(pages) == 3 and all(page["machine"]["board"] == "pi" for page in pages)
    times = {page["compressed"]["latency_ms"]["quickest"] for page in pages}
    ratios = {point["figures"]["latency_ratio"]["value"] for point in last_report(tmp_path)["front"]["points"]}
    assert len(times) == len(ratios) == 3 and 1.0 in ratios


def test_what_was_packed_is_timed_there_and_read_here(networks, tmp_path, monkeypatch):
    deployments = {role: deployment for role, (deployment, _, _) in networks.items()}
    pack(tmp_path / "devices.zip", deployments, random_images(), 1, {"iters": 4, "seconds": 0})
    command = [python_with(tmp_path, "numpy", "onnxruntime"), "devices.zip"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = Results.read(str(tmp_path / "results.json"))
    assert results.machine["engines"].keys() == {"onnxruntime"}
    options = config("engine.candidates=[openvino,onnxruntime]", "engine.threads=1")
    for one, deployment in zip(results.sessions, deployments.values(), strict=True):
        latency = results.latency("onnxruntime", deployment, "float32")
        assert list(latency.samples) == one.samples and (latency.rounds, one.session.threads) == (4, 1)
        first, second = ranked_engines(deployment, random_images(), options, there=results)
        assert (first.candidate.engine, first.latency_ms, first.excluded) == ("onnxruntime", latency.quickest, None)
        assert second.candidate.engine == "openvino" and "was not timed" in second.excluded
    write_onnx(tmp_path / "other.onnx", scale=3.0)
    with pytest.raises(UserError, match=r"benchmark\.results is of other deployments"):
        ranked_engines(Deployment.from_onnx(tmp_path / "other.onnx"), random_images(), options, there=results)
    (tmp_path / "none.json").write_text("{}")
    refused = {
        ("benchmark.results=none.json",): "none.json: cannot be read",
        ("compress=front", "benchmark.results=results.json"): "give benchmark.host=",
        ("compress=ptq", "compress.miou_loss=0.01", "benchmark.results=results.json"): "times of this machine",
        ("benchmark.host=pi", "benchmark.results=results.json"): "give one of them",
        ("benchmark.host=-oProxyCommand",): "benchmark.host=-oProxyCommand",
    }
    monkeypatch.chdir(tmp_path)
    for typed, words in refused.items():
        with pytest.raises(UserError, match=words):
            options = config(*TINY, *typed)
            plan(resolve(first_of(options)), stages_for(options), WANTED)


@pytest.mark.long
def test_a_run_takes_its_times_from_what_it_packed(tmp_path):
    assert segslim(*PRUNED, cwd=tmp_path).returncode == 0
    command = [sys.executable, "-m", "segslim", "devices", "pack", "last", "--iters", "4"]
    subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    command = [str(python_with(tmp_path, "numpy", "onnxruntime")), "devices.zip"]
    subprocess.run(command, cwd=tmp_path, check=True)
    results = json.loads((tmp_path / "results.json").read_text())
    done = segslim(*PRUNED, "benchmark.results=results.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = last_report(tmp_path)
    for role, one in zip(("baseline", "compressed"), results["sessions"], strict=True):
        assert report[role]["latency_ms"]["mean"] == pytest.approx(np.mean(one["samples"]))
    assert report["machine"]["engines"] == results["machine"]["engines"]
    made = {stage["name"] for stage in report["stages"] if not stage["cached"]}
    assert {"select", "benchmark"} <= made and made.isdisjoint({"train", "export", "baseline export"})


def test_heat_and_clock_are_read_where_the_system_tells(tmp_path):
    told = {
        "class/thermal/thermal_zone0/temp": "61500",
        "class/thermal/thermal_zone1/temp": "58000",
        "class/thermal/cooling_device0/type": "thermal-cpufreq-0",
        "class/thermal/cooling_device0/cur_state": "2",
        "class/thermal/cooling_device1/type": "gpio-fan",
        "class/thermal/cooling_device1/cur_state": "4",
        "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000",
        "devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "2400000",
    }
    assert conditions(tmp_path) == {}
    for name, text in told.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert conditions(tmp_path) == {"celsius": 61.5, "mhz": 1500.0, "most_mhz": 2400.0, "throttled": 2.0}
