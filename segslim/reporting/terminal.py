"""The screen: a line a stage as it runs, the table at the end. The libraries' own output goes to the run's log file."""

import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from segslim.config import Config
from segslim.pipeline.plan import Step
from segslim.pipeline.store import Artifact
from segslim.reporting import metrics
from segslim.reporting.front import terminal_view
from segslim.reporting.metrics import MISSING, Report, all_metrics
from segslim.screen import Screen
from segslim.streams import printable_line, stream

PLAIN_INTERVAL = 15.0  # seconds between two lines of progress where there is no terminal to redraw


class Terminal:
    """A run listener that prints. Inside `with`, what libraries print goes to `log_file` unless config.verbose."""

    def __init__(self, config: Config, log_file: Path, stages: Sequence[str] = ()):
        """config: with every `auto` decided; stages: the names of all that will run, in order."""
        self._config, self._stages = config, stages
        self._log_file = log_file
        self._bar: Progress | None = None
        self._last_line = 0.0
        self._step: Step | None = None
        self._warnings = _Warnings()

    def __enter__(self) -> "Terminal":
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            self._console = Screen(file=stack.enter_context(stream(os.dup(1), owned=True)), soft_wrap=True)
            if not self._config.verbose:
                stack.enter_context(_descriptors_to(self._log_file))
            logging.getLogger("segslim").addHandler(self._warnings)
            stack.callback(logging.getLogger("segslim").removeHandler, self._warnings)
            self._print_head()
            self._restore = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._restore:  # whatever goes wrong in printing
            self._end_bar()
            for warning in self._warnings.texts:
                self._console.print(Text.assemble(("warning:", "yellow"), " ", printable_line(warning)))

    def _print_head(self) -> None:
        c = self._config
        width, height = c.dataset.size
        dataset = f"{c.dataset.name} {width} x {height}"
        self._console.print(Text.assemble((c.compress.name, "bold"), f"  {c.model.name}  {dataset}  seed {c.seed}"))
        ranking = f"  (criterion {c.compress.criterion}, allocation {c.compress.allocation})"
        target = f"  (int8 for {c.export.target})"
        decided = (ranking if "score" in self._stages else "") + (target if "quantize" in self._stages else "")
        self._console.print(f"stages: {', '.join(self._stages)}{decided}", style="dim")

    def cached(self, step: Step, artifact: Artifact) -> None:
        self.line(step.label, "cached", artifact.manifest["result"])

    def waiting(self, step: Step) -> None:
        self.line(step.label, "waiting", "another process runs the same stage; its result will be used")

    def started(self, step: Step) -> None:
        self._step, self._last_line = step, time.monotonic()

    def progress(self, what: str, done: int, total: int) -> None:
        if self._console.is_terminal:
            self._draw(what, done, total)
        elif time.monotonic() - self._last_line > PLAIN_INTERVAL and self._step is not None:
            self._last_line = time.monotonic()
            self.line(self._step.label, f"{done}/{total}", what)

    def measured(self, iteration: int, numbers: Mapping[str, float]) -> None:
        """Curves are for a logger to draw."""

    def finished(self, step: Step, artifact: Artifact) -> None:
        self._end_bar()
        self.line(step.label, f"{artifact.manifest['seconds']:.1f} s", artifact.manifest["result"])

    def report(self, report: Report, folder: Path) -> None:
        """Prints whether it became faster, the table of both networks, and where they are."""
        if report.get("front"):
            self._console.print()
            self._console.print(terminal_view(report))
        sentence = verdict(report)
        if sentence:
            self._console.print(sentence)
        self._console.print()
        self._console.print(comparison(report))
        self._console.print()
        deployment, checkpoint = report["compressed"]["deployment"], report["artifacts"].get("checkpoint")
        for what, path in (("checkpoint", checkpoint), ("deployment", deployment), ("report", folder / "report.html")):
            if path is not None:
                self._console.print(f"  {what}: {os.path.relpath(path)}")

    def line(self, label: str, took: str, result: str) -> None:
        self._console.print(f"  {label:<20}{took:>10}  {result}")

    def _draw(self, what: str, done: int, total: int) -> None:
        if self._bar is None:
            left = TextColumn("  {task.description:<20}", markup=False)
            columns = (
                left,
                BarColumn(24),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[what]}", markup=False),
            )
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.add_task(self._step.label if self._step else "", total=total, what=what)
            self._bar.start()
        task = self._bar.tasks[0]
        self._bar.update(task.id, completed=done, total=total, what=what)

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def comparison(report: Report) -> Table:
    """Every metric of the baseline and of the compressed network, and its change; or of the dense network alone."""
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    dense_alone = metrics.is_dense(report)
    for heading in ("", "dense") if dense_alone else ("", "baseline", "compressed", "change"):
        table.add_column(heading, justify="left" if not heading else "right")
    before, after, change = report["baseline"], report["compressed"], report["change"]
    rows = [(m.name, m.text(before), m.text(after), m.change_text(change)) for m in all_metrics(report)]
    for key in ("engine", "precision"):
        rows.append((key, before.get(key) or MISSING, after.get(key) or MISSING, ""))
    for name, *cells in rows:
        table.add_row("  " + name, *(cells[:1] if dense_alone else cells))
    return table


def verdict(report: Report) -> Text:
    """Whether the compressed network is faster on its engine, and what would be better where it is known."""
    sentence = metrics.verdict(report)
    lines = [sentence, *report.get("advice", ())] if sentence else []
    text = Text("".join(f"\n  {line}" for line in lines))
    text.highlight_words(["not faster"], "bold yellow")
    return text


@contextmanager
def _descriptors_to(log_file: Path) -> Iterator[None]:
    """Within it all that is printed goes to the file: Paddle's C++ and child processes print past sys.stdout."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    try:
        with log_file.open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in enumerate(saved, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)


class _Warnings(logging.Handler):
    """Keeps the project's warnings for the end, each once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() not in self.texts:
            self.texts.append(record.getMessage())
