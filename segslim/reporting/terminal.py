"""The screen: a line a stage as it runs, the table at the end. The libraries' own output goes to the run's log file."""

import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from textwrap import fill, wrap

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from segslim.config import Config
from segslim.hardware import BESIDE, beside_other_jobs
from segslim.pipeline.plan import Step
from segslim.pipeline.store import Artifact
from segslim.reporting import metrics
from segslim.reporting.front import terminal_view
from segslim.reporting.metrics import MISSING, Report, all_metrics
from segslim.screen import Screen
from segslim.streams import printable_line, stream

log = logging.getLogger(__name__)

LABEL = 36  # letters of "12/14 choosing the engine, baseline"
PLAIN_INTERVAL = 15.0  # seconds between two lines of progress where there is no terminal to redraw


class Terminal:
    """A run listener that prints. Inside `with`, what libraries print goes to `log_file` unless config.verbose."""

    def __init__(self, config: Config, log_file: Path, steps: Sequence[Step] = ()):
        """config: with every `auto` decided; steps: all that will run, in order."""
        self._config = config
        self._steps = {step.fingerprint: number for number, step in enumerate(steps, start=1)}
        self._stages = [step.stage.name for step in steps]
        self._log_file = log_file
        self._bar: Progress | None = None
        self._last_line = 0.0
        self._step: Step | None = None
        self._warnings = _Warnings()
        self._job = f"job {os.environ[BESIDE]}:" if beside_other_jobs() else ""  # whose lines come between each other's

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
                width = self._console.width if self._console.is_terminal else sys.maxsize
                text = fill(
                    f"warning: {printable_line(warning)}", width, subsequent_indent="  ", break_on_hyphens=False
                )
                self._console.print(Text.assemble((text[:8], "yellow"), text[8:]))

    def _print_head(self) -> None:
        c = self._config
        width, height = c.dataset.size
        dataset = f"{c.dataset.name} {width} x {height}"
        job = f"{self._job} " if self._job else ""
        self._console.print(
            Text.assemble(job, (c.compress.name, "bold"), f"  {c.model.name}  {dataset}  seed {c.seed}")
        )
        decided = [f"{len(self._stages)} steps"]
        if "score" in self._stages:
            decided.append(f"criterion {c.compress.criterion}, allocation {c.compress.allocation}")
        if "quantize" in self._stages:
            decided.append(f"int8 for {c.export.target}")
        self._console.print("; ".join(decided), style="dim")

    def cached(self, step: Step, artifact: Artifact) -> None:
        self._line_of(step, "cached", artifact.manifest["result"])

    def waiting(self, step: Step, holder: str) -> None:
        self._line_of(step, "waiting", f"{holder} does the same; its result will be used")

    def started(self, step: Step) -> None:
        self._step, self._last_line = step, time.monotonic()
        if self._console.is_terminal:
            self._draw(step)

    def progress(self, what: str, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total, what=f"{done}/{total} {what}")
        elif time.monotonic() - self._last_line > PLAIN_INTERVAL and self._step is not None:
            self._last_line = time.monotonic()
            self._line_of(self._step, f"{done}/{total}", what)

    def measured(self, iteration: int, numbers: Mapping[str, float]) -> None:
        """Curves are for a logger to draw."""

    def finished(self, step: Step, artifact: Artifact) -> None:
        self._end_bar()
        self._line_of(step, f"{artifact.manifest['seconds']:.1f} s", artifact.manifest["result"])

    def warned(self, step: Step, warning: str) -> None:
        log.warning("%s", warning)

    def report(self, report: Report, folder: Path) -> None:
        """Prints whether it became faster, the table of both networks, and where they are."""
        if report.get("front"):
            self._console.print()
            self._console.print(terminal_view(report))
        sentence = verdict(report, self._console.width if self._console.is_terminal else 0)
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
        """What is done, how long it took and what came of it; on a terminal no word of it is broken."""
        head = f"{self._job}  {label:<{LABEL}}{took:>10}  "
        width = self._console.width if self._console.is_terminal else sys.maxsize
        for number, part in enumerate(wrap(result, max(width - len(head), 20), break_on_hyphens=False) or [""]):
            self._console.print((head if number == 0 else " " * len(head)) + part)

    def _line_of(self, step: Step, took: str, result: str) -> None:
        self.line(f"{self._number(step):>5} {step.words}", took, result)

    def _number(self, step: Step) -> str:
        return f"{self._steps[step.fingerprint]}/{len(self._steps)}" if step.fingerprint in self._steps else ""

    def _draw(self, step: Step) -> None:
        """The step that runs, with a spinner from its first moment and a bar as soon as it counts something."""
        self._end_bar()
        place = self._number(step).replace("/", " of ")
        columns = (
            SpinnerColumn(),
            TextColumn(f"step {place}" if place else "", style="dim"),
            TextColumn("{task.description}", markup=False),
            BarColumn(16),
            TimeElapsedColumn(),
            TextColumn("{task.fields[what]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
        )
        self._bar = Progress(*columns, console=self._console, transient=True)
        self._bar.add_task(step.words, total=None, what="")
        self._bar.start()

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


def verdict(report: Report, width: int = 0) -> Text:
    """Whether the compressed network is faster on its engine, and what would be better where it is known; folded to
    `width` letters where one is given.
    """
    sentence = metrics.verdict(report)
    lines = [*filter(None, [metrics.blindness(report), sentence]), *(report.get("advice", ()) if sentence else ())]
    folded = [
        fill(line, width - 2, subsequent_indent="  ", break_on_hyphens=False) if width else line for line in lines
    ]
    text = Text("".join(f"\n  {line}" for line in folded))
    text.highlight_words(["not faster", "no measurable difference", "one class only"], "bold yellow")
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
