"""A pipeline of four tiny stages on real files: count how often each ran, fail or stop on demand."""

from pathlib import Path

from segslim.errors import UserError
from segslim.pipeline.stage import read_json, stage


def config(folder: Path, **changes: object) -> dict:
    return {"journal": str(folder / "journal.txt"), "number": 2, "factor": 3, "note": "", "fail": False, **changes}


def runs(folder: Path) -> list[str]:
    journal = folder / "journal.txt"
    return journal.read_text().split() if journal.exists() else []


def _journal(config: dict, name: str) -> None:
    with Path(config["journal"]).open("a") as journal:
        journal.write(name + "\n")


def value(outcome) -> float:
    """What a stage gave."""
    return read_json(outcome.artifact.path, outcome.step.stage.kind)


@stage(gives="checkpoint", reads=["number"], ignores=["journal"])
def make(config):
    _journal(config, "make")
    return config["number"]


@stage(gives="checkpoint", reads=["factor"], ignores=["journal", "fail"])
def scale(checkpoint, config, workspace):
    _journal(config, "scale")
    if config["fail"]:
        (workspace.artifact / "half.txt").write_text("half")
        raise UserError("scale fails")
    workspace.progress("scaling", 1, 1)
    workspace.summarize(f"times {config['factor']}")
    return checkpoint * config["factor"]


@stage(gives="metrics", ignores=["journal"])
def measure(checkpoint, config):
    _journal(config, "measure")
    return -checkpoint


@stage(gives="ratio", ignores=["journal"])
def compare(metrics, baseline_metrics, config):
    _journal(config, "compare")
    return metrics / baseline_metrics


STAGES = {stage.name: stage for stage in (make, scale, measure, compare)}


def strategy(names: list[str], config: dict) -> list[tuple[str, dict]]:
    """Every stage sees the same config."""
    return [(name, config) for name in names]


class Silent:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.warnings: list[str] = []

    def cached(self, step, artifact):
        self.heard.append(("cached", step.label))

    def waiting(self, step, holder):
        self.heard.append(("waiting", step.label))
        self.holder = holder

    def started(self, step):
        self.heard.append(("started", step.label))

    def progress(self, what, done, total):
        self.heard.append(("progress", what))

    def measured(self, iteration, numbers):
        self.heard.append(("measured", str(iteration)))

    def finished(self, step, artifact):
        self.heard.append(("finished", step.label))

    def warned(self, step, warning):
        self.warnings.append(warning)
