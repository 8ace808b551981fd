"""This machine, as far as a run depends on it."""

import os
import platform
from pathlib import Path
from typing import Literal


def cores() -> int:
    """Those that this process may use: a sweep gives each of its jobs a part of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Its name, as Linux tells it or else Python."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def instruction_set() -> Literal["avx2", "vnni", "arm"]:
    """That of its int8 kernels: "vnni" or, without, "avx2" for x86 processors; "arm".

    Where x86 does not tell, "avx2": what is right there is right with VNNI too.
    """
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "arm"
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8").split() if info.exists() else []
    return "vnni" if "avx512_vnni" in flags or "avx_vnni" in flags else "avx2"


def machine_identity() -> dict[str, object]:
    """What a latency depends on besides the software: on another machine it is measured again."""
    return {"processor": processor(), "cores": cores()}
