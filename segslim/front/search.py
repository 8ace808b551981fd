"""The search: points made, judged and timed, and the one that is deployed."""

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from segslim.config import Config
from segslim.deployment.deployment import Deployment
from segslim.deployment.engines import Unreachable
from segslim.errors import UserError
from segslim.evaluation.front import Figure, beaten, bolder, choose, gains
from segslim.evaluation.metrics import interval, resampled_miou
from segslim.front.points import BOUNDS, DENSE, Point, bounds_of, first
from segslim.front.workers import Make, Silent, worker_count, workers
from segslim.pipeline.plan import Plan, plan
from segslim.pipeline.runner import Outcome, RunListener, run
from segslim.pipeline.stage import read_json
from segslim.pipeline.store import Store, in_use
from segslim.reporting.page import write_page_after_run
from segslim.reporting.report import WANTED, build_report, write_report
from segslim.reporting.sections import class_ious
from segslim.stages import TIMING, stages_for
from segslim.stages.evaluate import IMAGES
from segslim.stages.strategy import resolve

log = logging.getLogger(__name__)
GOALS = {"latency": "latency_ratio", "miou": "miou_loss", "size": "size_mb"}


def explore(
    config: Config, store: Store, listener: RunListener, tell: Callable[[str, str, str], None], folder: Path, typed: Any
) -> tuple[Config, dict[str, Any]]:
    """Makes the points, and chooses: gives the config of the chosen one, all of whose work is done, and the front as
    report.json has it.

    Args:
        config: of compress=front.
        store: where the points' work is.
        listener: hears of what all points share.
        tell: called with a point's name, the time it took, and what it came to.
        folder: where each point's own report is written.
        typed: the command's overrides.
    """
    started = time.perf_counter()
    with workers() as make:
        front = _Front(config, store, listener, tell, make, folder, typed)
        front.search()
    front.measure_latencies()
    if config.compress.retrain:
        front.retrain(started + 3600 * config.compress.hours)
    record = front.record()
    front.warn(record["chosen"])
    record["seconds"] = round(time.perf_counter() - started, 1)
    return front.by_name(record["chosen"]).config(config), record


class _Front:
    def __init__(
        self,
        config: Config,
        store: Store,
        listener: RunListener,
        tell: Callable[[str, str, str], None],
        make: Make,
        folder: Path,
        typed: Sequence[str],
    ) -> None:
        self.folder, self.typed = folder, typed
        self.config, self.store, self.listener, self.tell, self.make = config, store, listener, tell, make
        assert config.compress.front is not None
        self.front, self.bounds = config.compress.front, bounds_of(config)
        self.goal = config.compress.goal
        if self.goal == "auto":
            self.goal = "latency" if any(bound.name == "miou_loss" for bound in self.bounds) else "miou"
        self.figures: dict[Point, dict[str, Figure]] = {}
        self.reports: dict[Point, dict[str, Any]] = {}
        self.failed: dict[Point, str] = {}
        #: by a step's fingerprint: the stage, the first point with the step, and what is to be said of it
        self.warned: dict[str, tuple[str, str, tuple[str, ...]]] = {}
        self.dense_ms: list[float] = []
        self.fresh: set[str] = set()  # fingerprints of what was made by this command
        self.samples: dict[Point, np.ndarray] = {}  # of the mIoU, resampled over images

    # --- making points

    def search(self) -> None:
        """Makes points until there are as many as asked for, or none would tell anything."""
        self._walk(first(self.config), "", until="score", listener=self.listener)
        self._points([[DENSE]])
        if DENSE in self.failed:
            raise UserError(f"the dense network: {self.failed[DENSE]}")
        self._check_loss()
        low, high = self.front.ratios
        ends = [[Point(precision="int8")]] if "int8" in self.front.precisions else []
        self._points(ends + [self._at(high, align) for align in self.front.align])
        spans = {align: (low, self._reachable(low, high, align)) for align in self.front.align}
        workers = worker_count()
        while True:
            left, each = self.front.points - self._made(), len(self.front.precisions)
            placed = self._next(spans, min(workers, -(-left // each)))
            if not placed:
                break
            jobs = (self._at(ratio, align)[: left - each * at] for at, (align, ratio) in enumerate(placed))
            self._points([*jobs])
        if not self._compressed():
            point, error = next(iter(self.failed.items()))
            raise UserError(f"compress=front: no network could be made; {point.name}: {error}")

    def _check_loss(self) -> None:
        """Raises UserError where any network would hold the bound on the loss, whatever it predicts."""
        allowed = next((bound.most for bound in self.bounds if bound.name == "miou_loss"), None)
        miou = self.figures[DENSE]["miou"].value
        if allowed is not None and allowed >= miou:
            raise UserError(
                f"compress.miou_loss={allowed:g}: the dense network's own mIoU is {miou:.4f}, so any network"
                " holds this; give less, or weights that fit the data"
            )

    def _at(self, ratio: float, align: int) -> list[Point]:
        return [Point(ratio, align, precision) for precision in self.front.precisions]

    def _made(self) -> int:
        return len({*self.figures, *self.failed} - {DENSE})

    def _compressed(self) -> list[Point]:
        return sorted((p for p in self.figures if p != DENSE), key=lambda p: (p.ratio, p.align, p.precision, p.tuning))

    def _reachable(self, low: float, high: float, align: int) -> float:
        """The most ratio that a network can lose; not all can lose what was asked for."""
        while not self._known(align).keys() - {0.0} and high - 0.1 >= low and self._made() < self.front.points:
            high = round(high - 0.1, 2)
            self._points([self._at(high, align)])
        return high

    def _next(self, spans: Mapping[int, tuple[float, float]], count: int) -> list[tuple[int, float]]:
        """(align, ratio) of the next `count` points to make: those that tell most."""
        known = {align: self._known(align) for align in spans}
        chosen: list[tuple[int, float]] = []
        for _ in range(count):
            found = {
                (align, ratio): gain
                for align, span in spans.items()
                for ratio, gain in gains(known[align], span).items()
                if not any(point.ratio == ratio and point.align == align for point in self.failed)
            }
            if not found:
                break
            align, ratio = max(found, key=lambda place: found[place])
            chosen.append((align, ratio))
            curve = known[align]
            below, above = (pick(r for r in curve if (r < ratio) == less) for pick, less in ((max, True), (min, False)))
            share = (ratio - below) / (above - below)
            curve[ratio] = (1 - share) * np.asarray(curve[below]) + share * np.asarray(curve[above])
        return chosen

    def _known(self, align: int) -> dict[float, Any]:
        """What `gains` asks of one alignment. Where one precision failed, the other speaks for it."""
        known: dict[float, list[tuple[float, ...]]] = {}
        for ratio in sorted({point.ratio for point in self.figures if point.align == align or not point.ratio}):
            at = 1 if not ratio else align
            row = [self.figures.get(Point(ratio, at, precision)) for precision in self.front.precisions]
            there = next((figures for figures in row if figures), self.figures[DENSE])
            if any(row) or not ratio:
                known[ratio] = [
                    (one["miou_loss"].value, *(bound.room(one) for bound in self.bounds))
                    for one in (figures or there for figures in row)
                ]
        return known

    def _points(self, jobs: Sequence[Sequence[Point]]) -> None:
        """Makes points side by side, a job each, and judges them one by one."""
        begun = time.perf_counter()
        errors = self.make([[point.config(self.config) for point in job] for job in jobs])
        took = (time.perf_counter() - begun) / max(len(jobs), 1)
        for job, failures in zip(jobs, errors, strict=True):
            for point, error in zip(job, failures, strict=True):
                if error is None:
                    error = self._attempt(point, partial(self._judge, took=took / len(job)))
                if error is not None:
                    self.failed[point] = error
                    self.tell(point.name, "failed", error)

    def _attempt(self, point: Point, work: Callable[[Point], None]) -> str | None:
        """Why `work` failed, or None: an engine that fails on one point leaves the others."""
        try:
            work(point)
        except Unreachable:  # no fault of a point: the same command goes on
            raise
        except UserError as error:
            return str(error)
        except Exception as error:
            log.debug("point %s", point.name, exc_info=True)
            return f"{type(error).__name__}: {error}".splitlines()[0]
        return None

    def _walk(
        self, config: Config, name: str, until: str | None = None, listener: RunListener | None = None
    ) -> tuple[Plan, list[Outcome]]:
        """The work of the point of this name, told to `listener`; without one, its warnings are kept for the end."""
        steps = plan(resolve(config), stages_for(config), WANTED)
        again = steps.made_by(TIMING) - self.fresh if self.config.benchmark.again else ()
        with in_use(self.store.root, (step.fingerprint for step in steps.steps)):
            outcomes = run(steps, self.store, listener or Silent(), until, again)
        self.fresh |= {outcome.step.fingerprint for outcome in outcomes if not outcome.cached}
        for outcome in outcomes:
            told = () if listener else outcome.warnings
            self.warned.setdefault(outcome.step.fingerprint, (outcome.step.stage.name, name, told))
        return steps, outcomes

    # --- measuring them

    def _judge(self, point: Point, took: float) -> None:
        """Its figures; its latency as `select` found it, roughly."""
        steps, outcomes = self._walk(point.config(self.config), point.name, until="evaluate")
        paths = {outcome.step.fingerprint: outcome.artifact.path for outcome in outcomes}
        made = {kind: paths[step.fingerprint] for kind, step in steps.results.items() if step.fingerprint in paths}
        with np.load(made["metrics"] / IMAGES) as file:
            self.samples[point] = resampled_miou(file["counts"])
        metrics, cost = read_json(made["metrics"], "metrics"), Deployment(made["deployment"]).cost
        miou = metrics.get("agreement", metrics)["miou"]  # without labels, against the dense network
        latency = read_json(made["engine"], "engine")["candidates"][0]["latency_ms"]
        figures = {
            "miou": Figure(miou, *interval(self.samples[point])),
            "latency_ms": Figure.exact(latency),
            "size_mb": Figure.exact(cost.size_bytes / 1e6),
            "flops": Figure.exact(cost.flops),
        }
        dense = self.figures.get(point if point == DENSE else DENSE, figures)
        losses = self.samples[DENSE] - self.samples[point]
        figures["miou_loss"] = Figure(dense["miou"].value - miou, *interval(losses))
        figures["flops_ratio"] = Figure.exact(cost.flops / dense["flops"].value)
        figures["latency_ratio"] = Figure.exact(latency / dense["latency_ms"].value)
        self.figures[point] = figures
        done = all(outcome.cached for outcome in outcomes)
        self.tell(
            point.name,
            "cached" if done else f"{took:.1f} s",
            f"mIoU {miou:.4f}, {figures['flops_ratio'].value - 1:+.1%} FLOPs, {figures['size_mb'].value:.2f} MB",
        )

    def measure_latencies(self, points: Sequence[Point] = ()) -> None:
        """Times every point in turn with the dense network, alone on the machine, and writes its own report."""
        for point in points or [DENSE, *self._compressed()]:
            error = self._attempt(point, self._time)
            if error is not None and point == DENSE:
                raise UserError(f"the dense network: {error}")
            if error is not None:
                self.failed[point] = error
                del self.figures[point]
                self.tell(point.name, "failed", error)
        # a machine's speed drifts: so milliseconds are a point's ratio times what the dense network usually took
        usual = float(np.median(self.dense_ms))
        for figures in self.figures.values():
            ratio = figures["latency_ratio"]
            figures["latency_ms"] = Figure(*(usual * end for end in (ratio.value, ratio.low, ratio.high)))

    def _time(self, point: Point) -> None:
        config, folder = point.config(self.config), self.folder / point.name.replace(" ", "-")
        steps, outcomes = self._walk(config, point.name)
        self.reports[point] = build_report(config, steps, outcomes, point.overrides(self.typed))
        write_report(self.reports[point], folder / "report.json")
        write_page_after_run(folder)
        latency = next(o.artifact.path for o in outcomes if o.step.stage.name == "benchmark")
        timed = read_json(latency, "latency")
        ratio = timed["ratio"] or dict.fromkeys(("value", "low", "high"), 1.0)  # none of the dense network to itself
        self.figures[point]["latency_ratio"] = Figure(**ratio)
        self.dense_ms.append(timed["baseline"]["quickest"])

    # --- training what was chosen

    def retrain(self, deadline: float) -> None:
        """Trains the chosen point, whatever time is left; and then bolder ones, as long as what the last training won
        back would do for the next one, which would end before `deadline` if it takes as long.
        """
        point: Point | None = self.by_name(self._choice())
        if point is not None and not point.ratio:
            self.tell(
                point.name, "as it is", "compress.retrain trains what was pruned; give compress=quant to train int8"
            )
            return
        while point is not None:
            tuned = dataclasses.replace(point, tuning="retrain" if self.config.dataset.labelled else "distil")
            begun = time.perf_counter()
            error = self._attempt(tuned, self._train)
            took = time.perf_counter() - begun
            if error is not None:
                self.failed[tuned] = error
                self.tell(tuned.name, "failed", error)
                return
            self.measure_latencies([tuned])
            if tuned not in self.figures or time.perf_counter() + took > deadline:
                return
            won = self.figures[point]["miou_loss"].value - self.figures[tuned]["miou_loss"].value
            untrained = {
                other.name: self.figures[other] for other in self._compressed() if other.ratio and not other.tuning
            }
            name = bolder(untrained, self.bounds, GOALS[self.goal], point.name, won)
            point = None if name is None else self.by_name(name)

    def _train(self, point: Point) -> None:
        begun = time.perf_counter()
        self._walk(point.config(self.config), point.name, until="export", listener=self.listener)
        self._judge(point, time.perf_counter() - begun)

    def warn(self, chosen: str) -> None:
        """Logs one line for each stage that warned: what it said of the chosen point, or else of the first such one,
        and of which others it said something.
        """
        by_stage: dict[str, dict[str, list[str]]] = {}
        for stage, name, texts in self.warned.values():
            if texts:
                by_stage.setdefault(stage, {}).setdefault(name, []).extend(texts)
        for said in by_stage.values():
            name = chosen if chosen in said else next(iter(said))
            others = ", ".join(other for other in said if other != name)
            log.warning("%s: %s%s", name, "; ".join(said[name]), f" (also {others}: see their pages)" if others else "")

    # --- choosing among them

    def by_name(self, name: str) -> Point:
        return next(point for point in self.figures if point.name == name)

    def _choice(self) -> str:
        dense = self.figures[DENSE]
        units = {name: 1.0 if name == "miou_loss" else dense[name].value for name in BOUNDS}
        points = {point.name: self.figures[point] for point in self._compressed()}
        return choose(points, self.bounds, GOALS[self.goal], units)

    def record(self) -> dict[str, Any]:
        """The front, as report.json has it."""
        points = {point.name: self.figures[point] for point in self._compressed()}
        dense, chosen = self.figures[DENSE], self._choice()
        lost = beaten({DENSE.name: dense, **points}, ("miou_loss", "latency_ratio", "size_mb"))
        rooms = {bound: bound.room(points[chosen]) for bound in self.bounds}
        return {
            "goal": self.goal,
            "chosen": chosen,
            "bounds": [
                {**dataclasses.asdict(bound), "room": room, "figure": dataclasses.asdict(points[chosen][bound.name])}
                for bound, room in rooms.items()
            ],
            "missed": [bound.name for bound, room in rooms.items() if room < 0 and not bound.soft],
            "points": [
                {
                    **dataclasses.asdict(point),
                    "name": point.name,
                    "figures": {name: dataclasses.asdict(figure) for name, figure in self.figures[point].items()},
                    "class_iou": class_ious(self.reports[point]["compressed"]),
                    "beaten": point.name in lost,
                    "overrides": point.overrides(self.typed),
                    "deployment": self.reports[point]["compressed"]["deployment"],
                    "page": f"points/{point.name.replace(' ', '-')}/report.html",
                }
                for point in [DENSE, *self._compressed()]
            ],
            "failed": [{"name": point.name, "error": error} for point, error in self.failed.items()],
        }
