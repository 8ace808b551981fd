"""The one file for a board, and what is packed with it; results.json, read back."""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from segslim.deployment.deployment import Deployment
from segslim.devices.on_board import ENGINES
from segslim.errors import UserError
from segslim.evaluation.latency import ROUNDS, Latency
from segslim.files import read_plain, reader, sha256_of
from segslim.hardware import Load

PACKAGE = Path(__file__).parents[1]
#: Of segslim, what runs on a board; they import the standard library, NumPy, an engine, and each other.
MODULES = (
    *("errors.py", "hardware.py", "onnx_tools.py", "streams.py", "evaluation/latency.py", "devices/on_board.py"),
    *(f"deployment/engines/{name}.py" for name in ("__init__", "process", "onnx_runtime", "openvino", "mnn", "ncnn")),
)
EMPTY = ("__init__.py", "evaluation/__init__.py", "devices/__init__.py", "deployment/__init__.py")
MAIN = """import sys
if sys.version_info < (3, 10):
    sys.exit("error: Python 3.10 or newer is needed, and %s is %d.%d" % ((sys.executable,) + sys.version_info[:2]))
try:
    import numpy
except ImportError:
    sys.exit("error: there is no NumPy: " + sys.executable + " -m pip install numpy")
from segslim.devices.on_board import main
sys.exit(main())
"""


def write_program(file: Path, packed: Mapping[str, bytes | Path] = {}) -> None:
    """Writes the file that runs on a board, with what is `packed` by its name; the same bytes for the same content."""
    content: dict[str, bytes | Path] = {"__main__.py": MAIN.encode(), **{f"segslim/{name}": b"" for name in EMPTY}}
    content |= {f"segslim/{name}": PACKAGE / name for name in MODULES}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as stream:
        for name, data in {**content, **packed}.items():
            entry = zipfile.ZipInfo(name)  # of 1980, whenever it is written
            entry.compress_type = zipfile.ZIP_DEFLATED
            stream.writestr(entry, data.read_bytes() if isinstance(data, Path) else data)


def files_of(engine: str, deployment: Deployment) -> list[Path]:
    """What an engine of ENGINES reads of a deployment. Raises UserError where it has none, and for other engines."""
    if engine == "openvino":
        file = deployment.openvino_file
        return [file, file.with_suffix(".bin")] if file.suffix == ".xml" else [file]
    if engine == "ncnn":
        return list(deployment.ncnn_files)
    if engine not in ENGINES:
        raise UserError(f"engine {engine} runs on no board; choose of {', '.join(ENGINES)}")
    return [deployment.mnn_file if engine == "mnn" else deployment.onnx_file]


def given(deployment: Deployment) -> dict[str, Any]:
    """What an engine asks of a deployment besides its files."""
    precision = deployment.precision
    return {"weights": precision.weights, "target": precision.target, "output": deployment.output}


@cache  # of artifacts, which do not change
def digest_of(files: tuple[Path, ...]) -> str:
    """Of their names and contents."""
    named = [[file.name, sha256_of(file)] for file in files]
    return sha256(json.dumps(named).encode()).hexdigest()[:20]


def pack(
    file: Path, deployments: Mapping[str, Deployment], batch: np.ndarray, threads: int, timing: Mapping[str, float]
) -> list[str]:
    """Writes the file that times deployments, by their role, on any machine; gives the engines that they are for.

    timing: more of the options of `latency.measure`.
    """
    packed: dict[str, bytes | Path] = {}
    networks: list[dict[str, Any]] = []
    for role, deployment in deployments.items():
        for engine in ENGINES:
            try:
                files = files_of(engine, deployment)
            except UserError:  # its format was not exported
                continue
            digest = digest_of(tuple(files))
            names: dict[str, bytes | Path] = {f"timed/{digest}/{each.name}": each for each in files}
            packed |= names
            about = {"role": role, "engine": engine, "digest": digest}
            networks.append({**about, "given": {"files": list(names), **given(deployment)}})
    options = {"warmup": 10, "settle": 0.25, "rounds": ROUNDS, **timing}
    plan = {"networks": networks, "batch": "timed/batch.npy", "threads": threads, "options": options}
    write_program(file, {**packed, "timed/batch.npy": npy(batch), "pack.json": json.dumps(plan, indent=1).encode()})
    return list(dict.fromkeys(one["engine"] for one in networks))


def random_batch(size: Sequence[int], channels: int) -> np.ndarray:
    """One random image of (width, height): what every latency is that of."""
    width, height = size
    return np.random.default_rng(0).standard_normal((1, channels, height, width), np.float32)


def npy(array: np.ndarray) -> bytes:
    """As np.save writes it."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@dataclass(frozen=True)
class _Session:
    name: str
    version: str
    device: str
    threads: int
    precision: str


@dataclass(frozen=True)
class _Measured:
    at: datetime
    load: Load | None


@dataclass(frozen=True)
class _Timed:
    digest: str
    engine: str
    precision: str
    session: _Session | None = None
    error: str | None = None
    rounds: Annotated[int, Field(gt=0)] = 1
    samples: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = field(default_factory=list)
    conditions: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """What a packed file has measured: see on_board.time_packed."""

    machine: dict[str, Any]
    measured: _Measured
    sessions: list[_Timed]

    @staticmethod
    def read(file: str) -> "Results":
        """Raises UserError for what is none."""
        try:
            found: Results = reader(Results).validate_python(read_plain(Path(file)))
            _ = found.machine["host"], [engine["precisions"] for engine in found.machine["engines"].values()]
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no results.json"
            remedy = "`python -m segslim devices pack RUN` writes the file that makes one"
            raise UserError(f"benchmark.results={file}: cannot be read ({reason}); {remedy}") from None
        return found

    def of(self, engine: str, deployment: Deployment, precision: str) -> _Timed | None:
        """What it has of a deployment; None where it has not timed just these files so."""
        digest = digest_of(tuple(files_of(engine, deployment)))
        named = (one for one in self.sessions if one.samples and len(one.samples) % one.rounds == 0)
        return next((o for o in named if (o.digest, o.engine, o.precision) == (digest, engine, precision)), None)

    def latency(self, engine: str, deployment: Deployment, precision: str) -> Latency | None:
        found = self.of(engine, deployment, precision) if engine in ENGINES else None
        return None if found is None else Latency.from_samples(found.samples, found.rounds)
