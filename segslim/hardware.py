"""This machine, as far as a run depends on it: processor, load, and how long something takes."""

import gc
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

BUSY = 0.3  # cores that other processes take: more disturbs a timing


def cores() -> int:
    """Those that this process may use: a sweep gives each of its jobs a part of them, and Slurm each of its own.

    Slurm says how many, and holds a job to them only where task/affinity or task/cgroup is configured.
    """
    usable = len(core_numbers()) or os.cpu_count() or 1
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(usable, int(given)) if given.isdecimal() and int(given) else usable


def core_numbers() -> list[int]:
    """Of those that this process may use; none where the system does not tell (Windows, macOS)."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return []


def keep_to(numbers: Iterable[int]) -> None:
    """Restricts this process to cores; does nothing where the system has no such thing."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, numbers)


def processor() -> str:
    """Its name, as Linux tells it or else Python."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    board = Path("/proc/device-tree/model")  # ARM names no model, and the board does
    given = board.read_text(encoding="utf-8").strip("\0\n ") if board.exists() else platform.processor()
    return next(named, given or platform.machine())


def instruction_set() -> Literal["avx2", "vnni", "arm"]:
    """That of its int8 kernels: "vnni" or, without, "avx2" for x86 processors; "arm".

    Where x86 does not tell, "avx2": what is right there is right with VNNI too.
    """
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "arm"
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8").split() if info.exists() else []
    return "vnni" if "avx512_vnni" in flags or "avx_vnni" in flags else "avx2"


def saturates(target: str | None, instructions: str) -> bool:
    """Whether int8 kernels of a processor with these instructions may saturate on a file for the target."""
    return instructions == "avx2" and target in ("vnni", "arm")


def machine_identity() -> dict[str, object]:
    """What a latency depends on besides the software: on another machine it is measured again."""
    return {"processor": processor(), "cores": cores()}


#: A variable of the environment: which job of a sweep this is, where the sweep runs its jobs side by side.
BESIDE = "SEGSLIM_JOB_BESIDE_OTHERS"


def beside_other_jobs() -> bool:
    """Whether this is one of the jobs that a sweep runs side by side on this machine: on cores of its own, but they
    share the memory's bandwidth.
    """
    return BESIDE in os.environ


#: As the user has set it: Paddle sets it to 1 when it is imported.
OMP_NUM_THREADS = os.environ.get("OMP_NUM_THREADS")


@dataclass(frozen=True)
class Load:
    """What other processes took of this process's cores for a while: `others` cores out of `cores`."""

    others: float
    cores: int

    @property
    def is_busy(self) -> bool:
        """Whether a timing on the machine was disturbed."""
        return self.others > BUSY


def usage() -> dict[str, Any]:
    """What this process and all of them have used of the cores until now, in seconds; for `load_between`."""
    return {"at": time.perf_counter(), "own": sum(os.times()[:4]), "busy": _busy_seconds(), "cores": cores()}


def load_between(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> Load | None:
    """What others took of the cores: `usage` of each of our processes on one machine, before and after. None where the
    system does not tell.
    """
    took = after[0]["at"] - before[0]["at"]
    if before[0]["busy"] is None or after[0]["busy"] is None or took <= 0:
        return None
    ours = sum(end["own"] - start["own"] for start, end in zip(before, after, strict=True))
    others = after[0]["busy"] - before[0]["busy"] - ours
    return Load(round(max(0.0, others / took), 2), after[0]["cores"])


def conditions(system: Path = Path("/sys")) -> dict[str, float]:
    """As far as Linux tells: {celsius} of the hottest sensor, {mhz} of the core that is clocked highest now and
    {most_mhz} that it may have, {throttled}: by how many steps the system holds the processor back against heat.
    """

    def most(pattern: str, unit: float, kind: str = "") -> float | None:
        found: list[float] = []
        for file in system.glob(pattern):
            with suppress(OSError, ValueError):
                if not kind or kind in (file.parent / "type").read_text(encoding="utf-8").lower():
                    found.append(float(file.read_text(encoding="utf-8")) / unit)
        return max(found, default=None)

    told = {
        "celsius": most("class/thermal/thermal_zone*/temp", 1e3),
        "mhz": most("devices/system/cpu/cpu*/cpufreq/scaling_cur_freq", 1e3),
        "most_mhz": most("devices/system/cpu/cpu*/cpufreq/cpuinfo_max_freq", 1e3),
        "throttled": most("class/thermal/cooling_device*/cur_state", 1, "cpu"),
    }
    return {name: value for name, value in told.items() if value is not None}


def _busy_seconds() -> float | None:
    """What all processes have used of the cores that this one may use, since the system began."""
    if sys.platform != "linux":
        return None
    try:
        lines = Path("/proc/stat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    own = {f"cpu{number}" for number in core_numbers()}
    columns = [list(map(int, line.split()[1:9])) for line in lines if line.split()[0] in own]
    ticks = sum(sum(column) - column[3] - column[4] for column in columns)  # all but idle and waiting for a disk
    return float(ticks / os.sysconf("SC_CLK_TCK"))


def turn(run: Callable[[], object], count: int, settle: float) -> list[float]:
    """Milliseconds of each of `count` runs, after untimed ones, at least one, for `settle` seconds."""
    # Paddle's threads spin on after its last run: ONNX Runtime right behind it took three times as long
    end = time.perf_counter() + settle
    run()
    while time.perf_counter() < end:
        run()
    samples = []
    for _ in range(count):
        start = time.perf_counter_ns()
        run()
        samples.append((time.perf_counter_ns() - start) / 1e6)
    return samples


@contextmanager
def garbage_collector_off() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
