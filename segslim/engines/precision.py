"""What a deployment computes in: deploy.yaml's `precision` (its weights) and `compute` (all that is not int8)."""

from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Precision:
    """`weights` is float32 or int8; `compute` are the float types that may be tried, none where none is told."""

    weights: str = "float32"
    compute: tuple[str, ...] = ()

    @property
    def is_int8(self) -> bool:
        return self.weights == "int8"


def read_precision(deployment: Path) -> Precision:
    """The precision of a Deployment folder; that of a float network where its deploy.yaml says nothing."""
    file = deployment / "deploy.yaml"
    deploy = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("Deploy", {}) if file.is_file() else {}
    return Precision(deploy.get("precision", "float32"), tuple(deploy.get("compute", ())))


def write_precision(deployment: Path, precision: Precision) -> None:
    """Adds both keys to the deploy.yaml of a Deployment; an int8 one has model.onnx for its only model."""
    file = deployment / "deploy.yaml"
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    content["Deploy"] |= {"precision": precision.weights, "compute": list(precision.compute)}
    if precision.is_int8:
        content["Deploy"] |= {"model": "model.onnx", "params": "model.onnx"}
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
    file.write_text(text, encoding="utf-8")


def in_words(weights: str, compute: str) -> str:
    """ "bfloat16", or "int8 (bfloat16)": in brackets what is not int8 is computed in."""
    return f"int8 ({compute})" if weights == "int8" else compute
