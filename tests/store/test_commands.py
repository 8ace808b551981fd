"""`python -m segslim.store` as a user types it, without Paddle, on a store filled with what a real plan names."""

import os
import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from segslim.commands import age_text, parse_age, parse_size, size_text
from segslim.pipeline.store import Store
from segslim.store import StoredArtifact, distinguishing, plan_run
from tests.command import ROOT, poison

PRUNE = ["compress=prune", "compress.allocation=equal_loss", "compress.ratio=0.2", "dataset.source.train_images=8"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "store"
    made = Store(root)
    for step in plan_run(PRUNE, root)[0].steps:
        artifact, _ = made.open(step.fingerprint)
        (artifact / "result.txt").write_text(step.label)
        manifest = {"recipe": step.recipe, "result": f"of {step.label}", "seconds": 2.0}
        made.commit(step.stage.name, step.fingerprint, manifest)
    return root


@pytest.fixture(scope="module")
def type_(tmp_path_factory):
    without_paddle = poison(tmp_path_factory.mktemp("no_paddle"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(without_paddle), str(ROOT)])}

    def command(store: Path, *words: str):
        return subprocess.run(
            [sys.executable, "-m", "segslim.store", "--store", str(store), *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return command


def test_list_tells_of_each_artifact_what_it_is_and_what_it_was_made_from(store, type_):
    lines = type_(store, "list").stdout.splitlines()
    (prune,) = (line for line in lines if line.startswith("prune-"))
    assert "of prune" in prune and "2.0 s" in prune and "train-" in prune and "analyze-" in prune
    assert lines[-1].startswith(f"{len(lines) - 2} artifacts")
    assert type_(store).stdout.splitlines()[0] == lines[0]


def test_explain_names_the_key_that_makes_a_stage_run_again(store, type_):
    answer = type_(store, "explain", *PRUNE, "compress.ratio=0.3")
    lines = [" ".join(line.split()) for line in answer.stdout.splitlines()]
    assert any(line.startswith("train stored train-") for line in lines), answer.stderr
    assert "prune runs compress.ratio: 0.2 -> 0.3" in lines
    assert "reconstruct runs prune runs" in lines


def test_explain_finds_configs_of_ones_own(store, type_, tmp_path):
    folder = tmp_path / "it's mine"
    (folder / "dataset").mkdir(parents=True)
    own = "defaults: [synthetic_fundus]\nsource: {train_images: 8}\n"
    (folder / "dataset" / "own.yaml").write_text(own)
    answer = type_(store, "explain", f"--config-dir={folder}", *PRUNE[:3], "dataset=own")
    assert answer.returncode == 0 and answer.stdout.count("stored") == len(answer.stdout.splitlines()), answer


def test_explain_answers_a_mistake_in_one_line(store, type_):
    wrongs = {"compress.ratios=1": "ratios", "compress.ratio=7": "compress.ratio=7: should be less"}
    for wrong, words in {**wrongs, "--config-dir=nowhere": "--config-dir=nowhere: there is no such folder"}.items():
        answer = type_(store, "explain", *PRUNE, wrong)
        assert answer.returncode == 2 and words in answer.stderr and answer.stderr.count("\n") == 1


def test_verify_names_what_is_damaged(store, type_):
    assert type_(store, "verify").returncode == 0
    (file,) = store.glob("artifacts/prune-*/result.txt")
    whole = file.read_text()
    file.write_text("rot")
    answer = type_(Path("nowhere"), "verify", "--store", str(store))
    file.write_text(whole)
    assert answer.returncode == 1 and "result.txt has changed" in answer.stdout and "1 damaged" in answer.stdout


def test_collect_wants_a_limit_and_says_what_would_go(store, type_):
    assert type_(store, "collect").returncode == 2
    answer = type_(store, "collect", "--down-to", "0B", "--dry-run")
    assert "would be deleted" in answer.stdout and "prune-" in answer.stdout
    assert list(store.glob("artifacts/prune-*"))


def test_no_store_is_one_line(tmp_path, type_):
    answer = type_(tmp_path / "none", "list")
    assert answer.returncode == 2 and answer.stderr.startswith("error: store=")


def test_ages_and_sizes_are_read_as_people_write_them():
    assert parse_size("9" * 400 + "GB") > 10**20
    assert (parse_age("30d"), parse_age("1.5h"), parse_size("10GB"), parse_size("2 kb")) == (
        2592000,
        5400,
        10**10,
        2000,
    )


@pytest.mark.parametrize(
    ("read", "text"), [(parse_age, "30"), (parse_age, "2y"), (parse_size, "-1GB"), (parse_size, "x")]
)
def test_anything_else_is_named(read, text):
    with pytest.raises(ArgumentTypeError, match=text):
        read(text)


def test_ages_and_sizes_are_written_with_a_unit_that_fits():
    assert [age_text(seconds) for seconds in (5, 300, 93784, 9e5)] == ["5 s", "5 m", "26 h", "10 d"]
    assert [size_text(count) for count in (999, 1500, 5_730_000)] == ["999 B", "1.5 KB", "5.73 MB"]


class Counted(int):
    """A number that counts how often it is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return int(self) == other

    def __hash__(self) -> int:
        return int(self)


def test_settings_that_tell_artifacts_apart_are_found_in_one_walk():
    """Ten thousand artifacts, listed, took minutes where each was compared with each."""
    configs = [{"seed": 1, "a.b.c": n % 2, "compress.ratio": Counted(n), "list": [n]} for n in range(200)]
    configs += [{"seed": 1, "late": None}, {"seed": 1, "late": 5}]
    artifacts = [
        StoredArtifact(Path(f"s-{n}"), {"recipe": {"stage": "s", "config": config}}, 0, 0.0)
        for n, config in enumerate(configs)
    ]
    other = StoredArtifact(Path("t-1"), {"recipe": {"stage": "t", "config": {"seed": 7}}}, 0, 0.0)
    found = distinguishing([other, *artifacts, StoredArtifact(Path("damaged"), {}, 0, 0.0)])
    assert found[:4] == [
        [],
        ["compress.ratio=0", "a.b.c=0"],
        ["compress.ratio=1", "a.b.c=1"],
        ["compress.ratio=2", "a.b.c=0"],
    ]
    assert found[-3:] == [[], ["late=5"], []]
    assert Counted.compared <= 2 * len(configs)
