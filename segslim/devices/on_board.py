"""What runs on a board: tells of the machine, serves a session, or times what it was packed with.

It is part of one file with a few modules of segslim beside it (see packed.write_program), started as

    python3 FILE machine | session | (nothing: times, and writes results.json)
"""

import json
import platform
import sys
import zipfile
from contextlib import ExitStack
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from segslim.deployment.engines import PACKAGES, available, computes_in, runs_int8
from segslim.deployment.engines.process import Here, TimedSession, serve
from segslim.errors import UserError, complain_of
from segslim.evaluation.latency import Latency, measure, paired_ratio
from segslim.hardware import instruction_set, load_between, machine_identity, usage

ENGINES = ("onnxruntime", "openvino", "mnn", "ncnn")
RESULTS = "results.json"


def machine() -> dict[str, Any]:
    """What a latency depends on here, with {engines: {name: {version, precisions, int8}}}."""
    engines = {}
    for name in available(ENGINES):
        try:
            found = {"precisions": computes_in(name), "int8": runs_int8(name)}
            engines[name] = {"version": version(PACKAGES.get(name, name)), **found}
        except Exception as error:  # a wheel for another processor
            print(f"{name}: {error!r}", file=sys.stderr)
    system = {"system": platform.platform(terse=True), "python": platform.python_version()}
    there = {"host": platform.node(), **machine_identity(), "instructions": instruction_set(), **system}
    return {**there, "executable": sys.executable, "engines": engines}


def time_packed(program: Path) -> None:
    """Times, in turn, every packed network in every engine and float type that is here; writes RESULTS here."""
    with zipfile.ZipFile(program) as packed, TemporaryDirectory() as folder, ExitStack() as stack:
        plan = json.loads(packed.read("pack.json"))
        packed.extractall(folder, [name for name in packed.namelist() if name.startswith("timed/")])
        here, told = Here((sys.executable, str(program), "session")), machine()
        engines = told["engines"]
        if not engines:
            raise UserError(f"no engine is here: {sys.executable} -m pip install onnxruntime")
        sessions: dict[str, TimedSession] = {}
        about: dict[str, dict[str, Any]] = {}
        for one in plan["networks"]:
            if one["engine"] not in engines:
                continue
            given = {**one["given"], "batch": str(Path(folder, plan["batch"]))}
            given["files"] = [str(Path(folder, file)) for file in given["files"]]
            for precision in engines[one["engine"]]["precisions"]:
                name = f"{one['role']} {one['engine']} {precision}"
                about[name] = {"digest": one["digest"], "engine": one["engine"], "precision": precision}
                session = TimedSession(one["engine"], given, threads=plan["threads"], precision=precision, place=here)
                stack.enter_context(session)
                try:
                    about[name]["session"] = session.describe()
                    sessions[name] = session
                except UserError as error:
                    about[name]["error"] = str(error)
                print(f"{name}: {about[name].get('error', 'opened')}", flush=True)
        if not sessions:
            raise UserError("no engine opens any of the networks")

        def settled(so_far: Any) -> bool:
            best = [_fastest(so_far, role) for role in ("baseline", "compressed")]
            return best[0] is None or best[1] is None or paired_ratio(best[0], best[1]).is_settled

        before = [usage(), *(session.usage() for session in sessions.values())]
        timed = measure(sessions, is_settled=settled, **plan["options"])
        after = [usage(), *(session.usage() for session in sessions.values())]
        load = load_between(before, after)
    for name, latency in timed.items():
        about[name] |= {"rounds": latency.rounds, "samples": latency.samples}
        about[name]["conditions"] = sessions[name].conditions
        print(f"{name}: {latency.quickest:.2f} ms")
    measured = {"at": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    result = {"machine": told, "measured": {**measured, "load": load and vars(load)}, "sessions": list(about.values())}
    Path(RESULTS).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{RESULTS}: give it to run.py by benchmark.results={RESULTS}")


def _fastest(timed: Any, role: str) -> Latency | None:
    of_role = [latency for name, latency in timed.items() if name.startswith(role)]
    return min(of_role, key=lambda latency: latency.quickest, default=None)


def main() -> int:
    what = sys.argv[1] if len(sys.argv) > 1 else ""
    try:
        if what == "machine":
            print(json.dumps(machine()))
        elif what == "session":
            serve(int(sys.argv[2]) if len(sys.argv) > 2 else None)
        else:
            time_packed(Path(sys.argv[0]).resolve())
    except Exception as error:
        return complain_of(error)
    return 0
