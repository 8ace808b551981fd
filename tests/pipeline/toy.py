"""A pipeline of four tiny stages on real files: count how often each ran, fail or stop on demand."""

import json
from pathlib import Path
from types import SimpleNamespace

from segslim.errors import UserError
from segslim.pipeline.stage import Stage


def config(folder: Path, **changes: object) -> dict:
    return {"journal": str(folder / "journal.txt"), "number": 2, "factor": 3, "note": "", "fail": False, **changes}


def runs(folder: Path) -> list[str]:
    journal = folder / "journal.txt"
    return journal.read_text().split() if journal.exists() else []


def _write(workspace: SimpleNamespace, config: dict, name: str, value: float) -> str:
    with Path(config["journal"]).open("a") as journal:
        journal.write(name + "\n")
    (workspace.artifact / "value.json").write_text(json.dumps(value))
    return f"value {value}"


def value(folder: Path) -> float:
    return json.loads((folder / "value.json").read_text())


def make(inputs, config, workspace):
    return _write(workspace, config, "make", config["number"])


def scale(inputs, config, workspace):
    if config["fail"]:
        (workspace.artifact / "half.txt").write_text("half")
        raise UserError("scale fails")
    workspace.progress("scaling", 1, 1)
    return _write(workspace, config, "scale", value(inputs["checkpoint"]) * config["factor"])


def measure(inputs, config, workspace):
    return _write(workspace, config, "measure", -value(inputs["checkpoint"]))


def compare(inputs, config, workspace):
    return _write(workspace, config, "compare", value(inputs["metrics"]) / value(inputs["baseline metrics"]))


STAGES = {
    stage.name: stage
    for stage in (
        Stage("make", (), "checkpoint", ("number",), "tests.pipeline.toy:make"),
        Stage("scale", ("checkpoint",), "checkpoint", ("factor",), "tests.pipeline.toy:scale"),
        Stage("measure", ("checkpoint",), "metrics", (), "tests.pipeline.toy:measure"),
        Stage("compare", ("metrics", "baseline metrics"), "ratio", (), "tests.pipeline.toy:compare"),
    )
}


def strategy(names: list[str], config: dict) -> list[tuple[str, dict]]:
    """Every stage sees the same config."""
    return [(name, config) for name in names]


class Silent:
    """An observer that keeps what it was told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def cached(self, step, artifact):
        self.heard.append(("cached", step.label))

    def waiting(self, step):
        self.heard.append(("waiting", step.label))

    def started(self, step):
        self.heard.append(("started", step.label))

    def progress(self, what, done, total):
        self.heard.append(("progress", what))

    def measured(self, iteration, numbers):
        self.heard.append(("measured", str(iteration)))

    def finished(self, step, artifact):
        self.heard.append(("finished", step.label))
