"""What quantization knows of a network: the range of each activation and, where it was trained, the scales of weights.

quantization.yaml           {origin, form, training, compute, keep_float: [weights], ranges: {tensor: [low, high]}}
weight_scales.safetensors   one scale an output channel, by the parameter's name; absent where the weights decide
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import yaml

from segslim.errors import UserError

TABLE_FILE = "quantization.yaml"
SCALES_FILE = "weight_scales.safetensors"

Range = tuple[float, float]


@dataclass(frozen=True)
class Table:
    """`keep_float` are the weights of layers left float; `form` is one of qdq.FORMS; `compute` are the float types that
    engines may try for what is not int8; `training` are the options of the fake-quantize layers that a retraining puts
    in, none where it is not to be trained; `origin` says in a few words where the ranges come from; `suspects` are the
    layers that lose most."""

    ranges: Mapping[str, Range]
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    keep_float: tuple[str, ...] = ()
    form: str = "uint8"
    compute: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ""
    suspects: tuple[str, ...] = ()

    def save(self, folder: Path) -> None:
        ranges = {name: [float(low), float(high)] for name, (low, high) in self.ranges.items()}
        lists = {"compute": list(self.compute), "keep_float": list(self.keep_float), "suspects": list(self.suspects)}
        plain = {"origin": self.origin, "form": self.form, "training": dict(self.training), **lists, "ranges": ranges}
        text = yaml.safe_dump(plain, sort_keys=False, default_flow_style=None, width=120)
        (folder / TABLE_FILE).write_text(text, encoding="utf-8")
        if self.weights:
            scales = {name: np.ascontiguousarray(scale, np.float32) for name, scale in self.weights.items()}
            safetensors.numpy.save_file(scales, folder / SCALES_FILE)

    @staticmethod
    def load(folder: Path) -> "Table | None":
        """The table of a checkpoint folder, or None where it is float. Raises UserError for one that is torn."""
        file = folder / TABLE_FILE
        if not file.exists():
            return None
        try:
            plain = yaml.safe_load(file.read_text(encoding="utf-8"))
            ranges = {str(name): (float(low), float(high)) for name, (low, high) in plain["ranges"].items()}
            scales = folder / SCALES_FILE
            weights = safetensors.numpy.load_file(scales) if scales.exists() else {}
            lists = (tuple(plain["keep_float"]), str(plain["form"]), tuple(plain["compute"]))
            last = (dict(plain["training"]), str(plain["origin"]), tuple(plain["suspects"]))
            return Table(ranges, weights, *lists, *last)
        except (AttributeError, KeyError, TypeError, ValueError, OSError, yaml.YAMLError) as error:
            raise UserError(f"{file}: does not describe a quantization ({error!r}); make it again") from None
