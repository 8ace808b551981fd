"""benchmark: both deployments, each in its engine -> latency. Timed in turn, so that their ratio is fair."""

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np

from segslim.config import Config
from segslim.deployment.cost import by_layer
from segslim.deployment.deployment import Deployment, precision_in_words
from segslim.deployment.engines import available, computes_in
from segslim.deployment.engines.process import HERE, Place
from segslim.devices.board import Board
from segslim.devices.packed import Results
from segslim.evaluation.latency import NOISE, Latency, Ratio, compare, measure, paired_ratio
from segslim.hardware import Load, beside_other_jobs, load_between, usage
from segslim.pipeline.stage import Workspace, stage
from segslim.stages.shared import ENGINES
from segslim.stages.shared.sessions import batch, check_recorded, other_machine, timed_on, timed_sessions

FEWER = 3  # as many times fewer runs than the benchmark proper: these only advise
PROFILED = 5  # runs in which each layer is timed
UNSTEADY = 0.25  # of the median: half of the runs of a network are farther from each other than this


@stage(
    does="timing",
    gives="latency",
    reads=["benchmark", "engine", "dataset.size", "dataset.channels"],
    ignores=["benchmark.again", "benchmark.when"],
    packages=ENGINES,
    version=7,
)
def benchmark(
    baseline_deployment: Deployment,
    baseline_engine: dict[str, Any],
    deployment: Deployment,
    engine: dict[str, Any],
    config: Config,
    workspace: Workspace,
) -> dict[str, Any]:
    """Gives {baseline, compressed: {quickest, mean, median, p99, std, samples, rounds}}: ms to predict one image;
    {ratio: {value, low, high}}, the compressed network's time in units of the baseline's with its 95 % interval;
    {measured: {at, load: {others, cores}, beside}}, when, what other processes took of the cores meanwhile, and whether
    other jobs of a sweep ran on the machine, and {conditions} of heat and clock, by network; {layers:
    {baseline, compressed}}, milliseconds by layer (see cost.by_layer).

    Where the compressed network is not faster, and config.benchmark.advice says so, there is `advice` in it, and the
    `alternatives` that it is drawn from.
    """
    options, device = config.benchmark, other_machine(config)
    deployed = {"baseline": (baseline_deployment, baseline_engine), "compressed": (deployment, engine)}
    if baseline_deployment == deployment:  # nothing was compressed: one measurement is both
        del deployed["baseline"]
    wanted = {role: (files, e["engine"], e["precision"]) for role, (files, e) in deployed.items()}
    place = device if isinstance(device, Board) else HERE
    if isinstance(device, Results):
        measured, record = _recorded(wanted, device)
    else:
        measured, record = _timed(wanted, config, place)
    ratio = paired_ratio(measured["baseline"], measured["compressed"]) if "baseline" in measured else None
    record |= {role: dataclasses.asdict(latency) for role, latency in measured.items()}
    record.setdefault("baseline", record["compressed"])
    record["ratio"] = ratio and dataclasses.asdict(ratio)
    if options.advice and ratio is not None and ratio.verdict != "faster":
        others = _alternatives(wanted, config, device)
        record["alternatives"] = {name: dataclasses.asdict(one) for name, one in others.items()}
        record["advice"] = [advice(ratio, others)]
    where = "" if device is None else f", on {device.machine['host']}"
    interval = "" if ratio is None else f": {ratio.value - 1:+.1%} ({ratio.low - 1:+.1%} to {ratio.high - 1:+.1%})"
    workspace.summarize(" -> ".join(f"{latency.quickest:.2f} ms" for latency in measured.values()) + interval + where)
    return record


Wanted = Mapping[str, tuple[Deployment, str, str]]  # (deployment, engine, precision), by the role


def _timed(wanted: Wanted, config: Config, place: Place) -> tuple[dict[str, Latency], dict[str, Any]]:
    """The latencies, and {sessions, layers, measured}."""
    options = config.benchmark
    with timed_sessions(wanted, batch(config), config, all_of_them=True, place=place) as sessions:

        def used() -> list[dict[str, Any]]:
            return [*([usage()] if place is HERE else []), *(session.usage() for session in sessions.values())]

        before = used()
        if "baseline" in sessions:
            pair = sessions["baseline"], sessions["compressed"]
            timed = compare(*pair, options.warmup, options.iters, options.settle, options.seconds)
            measured = {"baseline": timed[0], "compressed": timed[1]}
        else:
            measured = measure(sessions, options.warmup, options.iters, options.settle)
        load = load_between(before, used())
        described = {role: session.describe() for role, session in sessions.items()}
        nodes = {role: session.node_times(PROFILED) for role, session in sessions.items() if options.layers}
    return measured, {
        "sessions": described,
        "layers": {role: by_layer(wanted[role][0].onnx_file, times) for role, times in nodes.items()},
        "measured": {
            "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "load": load and dataclasses.asdict(load),
            "beside": beside_other_jobs() and place is HERE,
            "conditions": {role: session.conditions for role, session in sessions.items()},
        },
    }


def _recorded(wanted: Wanted, results: Results) -> tuple[dict[str, Latency], dict[str, Any]]:
    """The same, of what a packed file has measured."""
    latencies = {role: results.latency(engine, files, compute) for role, (files, engine, compute) in wanted.items()}
    check_recorded(latencies.values())
    found = {role: results.of(engine, files, compute) for role, (files, engine, compute) in wanted.items()}
    timed = {role: one for role, one in found.items() if one is not None}
    return {role: latency for role, latency in latencies.items() if latency is not None}, {
        "sessions": {role: one.session and dataclasses.asdict(one.session) for role, one in timed.items()},
        "layers": {},
        "measured": {
            "at": results.measured.at.isoformat(),
            "load": results.measured.load and dataclasses.asdict(results.measured.load),
            "conditions": {role: one.conditions for role, one in timed.items()},
        },
    }


@benchmark.remark
def disturbed(record: Mapping[str, Any], config: Config) -> Sequence[str]:
    """Whether the machine was busy, so that the timings are to be taken again."""
    found = []
    load = record["measured"]["load"]
    if load is not None and Load(**load).is_busy:
        found.append(f"other processes took {load['others']:.1f} of {load['cores']} cores")
    for role in dict.fromkeys(("baseline", "compressed")[record["ratio"] is None :]):
        low, middle, high = np.quantile(record[role]["samples"], [0.25, 0.5, 0.75])
        if (high - low) / middle > UNSTEADY:
            found.append(f"half of the runs of the {role} network are within {low:.2f} to {high:.2f} ms")
    if record["measured"].get("beside"):
        return ["timed beside other jobs of a sweep, which share the memory: benchmark.when=end times again at its end"]
    if not found:
        return []
    return [f"timed on a busy machine: {'; '.join(found)}; benchmark.again=true times again when it is quiet"]


benchmark.depends(timed_on)


def _alternatives(wanted: Wanted, config: Config, device: Board | Results | None) -> dict[str, Ratio]:
    """The time of both networks on every candidate engine in every precision, in units of the baseline's as it is
    deployed; without the two that were timed already.
    """
    networks = {"the dense network": wanted["baseline"][0], "the compressed network": wanted["compressed"][0]}
    engines = {name: computes_in(name) for name in available(config.engine.candidates)}
    if device is not None:
        engines = {name: found["precisions"] for name, found in device.machine["engines"].items() if name in engines}
    pairs = {
        _name(network, deployment, engine, compute): (deployment, engine, compute)
        for network, deployment in networks.items()
        for engine, computes in engines.items()
        for compute in computes
        if (deployment, engine, compute) not in wanted.values()
    }
    if not pairs:
        return {}
    options, pairs = config.benchmark, {"baseline": wanted["baseline"], **pairs}
    if isinstance(device, Results):
        recorded = {name: device.latency(engine, files, compute) for name, (files, engine, compute) in pairs.items()}
        timed = {name: latency for name, latency in recorded.items() if latency is not None}
    else:
        with timed_sessions(pairs, batch(config), config, place=device or HERE) as sessions:
            timed = measure(sessions, min(2, options.warmup), max(5, options.iters // FEWER), options.settle)
    return {name: paired_ratio(timed["baseline"], latency) for name, latency in timed.items() if name != "baseline"}


def _name(network: str, deployment: Deployment, engine: str, compute: str) -> str:
    return f"{network} on {engine}, {precision_in_words(deployment.precision, compute)}"


def advice(deployed: Ratio, others: Mapping[str, Ratio]) -> str:
    """What to deploy instead of what was timed, which was not faster than the baseline, in one sentence.

    deployed, others: the time of that and of all else, in units of the baseline's.
    """
    faster = {name: ratio for name, ratio in others.items() if ratio.verdict == "faster"}
    if faster:
        best = min(faster, key=lambda name: faster[name].high)
        low, high = 1 - faster[best].high, 1 - faster[best].low
        return (
            f"faster here: {best}, {1 - faster[best].value:.1%} less time than the baseline ({low:.1%} to {high:.1%})"
        )
    if deployed.verdict == "slower":
        return "no engine here runs either network faster than the baseline: deploy the dense network"
    return f"no engine here makes a difference of more than {NOISE:.0%}: compress more"
