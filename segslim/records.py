"""What stages leave in their artifacts for others to read: JSON, by names that who writes and who reads it share."""

import dataclasses
import json
from pathlib import Path
from typing import Any

SUMMARY, SKIPPED = "summary.json", "skipped.json"  # data: what is in each split, and what of it is left out
SENSITIVITY = "sensitivity.json"  # analyze
GROUPS = "groups.json"  # prune: channels before and after
COST = "cost.json"  # export: FLOPs, parameters, bytes
ENGINE = "engine.json"  # select: the fastest, and what became of the others
METRICS = "metrics.json"  # evaluate, and what a training measured on its way
PARITY = "parity.json"
LATENCY = "latency.json"  # benchmark
PICTURES = "pictures.json"  # preview


def write_record(folder: Path, name: str, content: Any) -> None:
    """Writes plain values, or a dataclass of them."""
    plain = dataclasses.asdict(content) if dataclasses.is_dataclass(content) else content  # type: ignore[arg-type]
    (folder / name).write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_record(folder: Path, name: str) -> Any:
    """Raises OSError or ValueError where there is none."""
    return json.loads((folder / name).read_text(encoding="utf-8"))
