"""How a network is quantized: a frozen value that is part of a checkpoint. It needs numpy, YAML and safetensors only.

quantization.yaml           every field but the weight scales
weight_scales.safetensors   one scale per output channel, by the parameter's name; absent where the weights decide
rounded.safetensors         integers, scales and biases that are not those nearest to the weights; absent where all are
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.numpy
import yaml

from segslim.errors import UserError
from segslim.files import read_plain

SPEC_FILE = "quantization.yaml"
SCALES_FILE = "weight_scales.safetensors"
ROUNDED_FILE = "rounded.safetensors"
PRECISIONS = ("int8", "float32")
ACTIVATION_TYPES = ("uint8", "int8")
#: All but ranges and arrays, in the order of the file.
PLAIN_FIELDS: dict[str, type[Any]] = {
    **dict.fromkeys(("precision", "origin", "target", "activation_type"), str),
    "fake_quantize": dict,
    **dict.fromkeys(("compute", "keep_float", "noisiest_layers"), tuple),
}
SATURATING = ("avx2", "any")  # targets for which weights take less than 8 bits (saturation.py), not "vnni" and "arm"

Range = tuple[float, float]


@dataclass(frozen=True)
class QuantizationSpec:
    """The precision of a network, and for int8 the ranges and scales that it takes.

    Args:
        ranges: lowest and highest value of each activation, by its tensor's name in the float ONNX graph.
        precision: "int8", or "float32" for a spec that only names `compute`.
        weight_scales: one scale per output channel, by the weight's name; where absent, the largest weight decides.
        rounded: {weight.int8, weight.scale, weight.bias}, by the weight's name: what an int8 layer has in place of its
            weight rounded to the nearest (rounding.py).
        keep_float: names of the weights whose layers stay float.
        target: the processors whose kernels compute it exactly: "avx2", "vnni", "arm", "any" (saturation.py).
        activation_type: "uint8" for OpenVINO and ONNX Runtime, "int8" for TensorRT (see qdq.py).
        compute: float types that engines may try for what is not int8.
        fake_quantize: options of the fake-quantize layers (compress.qat) for retraining; {} to retrain without.
        origin: where the ranges come from, in a few words for the terminal.
        noisiest_layers: layers with the lowest signal-to-quantization-noise ratio, the worst first.

    Raises ValueError for an unknown precision, and for ranges or scales where the precision is float32.
    """

    ranges: Mapping[str, Range] = field(default_factory=dict)
    precision: Literal["int8", "float32"] = "int8"
    weight_scales: Mapping[str, np.ndarray] = field(default_factory=dict)
    rounded: Mapping[str, np.ndarray] = field(default_factory=dict)
    keep_float: tuple[str, ...] = ()
    target: str = "vnni"
    activation_type: str = "uint8"
    compute: tuple[str, ...] = ()
    fake_quantize: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ""
    noisiest_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision}: should be one of {', '.join(PRECISIONS)}")
        if not self.is_int8 and (self.ranges or self.weight_scales or self.rounded):
            raise ValueError("precision=float32 has no ranges and no weight scales")

    @property
    def is_int8(self) -> bool:
        return self.precision == "int8"

    def save(self, folder: Path) -> None:
        """Writes quantization.yaml and, where scales are known, weight_scales.safetensors into an existing folder."""
        as_plain: dict[type, Any] = {str: str, tuple: list, dict: dict}
        plain = {name: as_plain[kind](getattr(self, name)) for name, kind in PLAIN_FIELDS.items()}
        plain["ranges"] = {name: [float(low), float(high)] for name, (low, high) in self.ranges.items()}
        text = yaml.safe_dump(plain, sort_keys=False, default_flow_style=None, width=120)
        (folder / SPEC_FILE).write_text(text, encoding="utf-8")
        for name, arrays in ((SCALES_FILE, self.weight_scales), (ROUNDED_FILE, self.rounded)):
            if arrays:
                # safetensors writes an array's buffer as it lies in memory: a strided view would be stored wrongly
                plain_arrays = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
                safetensors.numpy.save_file(plain_arrays, folder / name)

    @staticmethod
    def load(folder: Path) -> "QuantizationSpec | None":
        """The spec of a checkpoint folder, or None where there is none. Raises UserError for a damaged file."""
        file = folder / SPEC_FILE
        if not file.exists():
            return None
        try:
            plain = read_plain(file)
            scales, rounded = (
                safetensors.numpy.load_file(folder / name) if (folder / name).exists() else {}
                for name in (SCALES_FILE, ROUNDED_FILE)
            )
            ranges = {str(name): (float(low), float(high)) for name, (low, high) in plain["ranges"].items()}
            others = {name: kind(plain[name]) for name, kind in PLAIN_FIELDS.items()}
            return QuantizationSpec(ranges, weight_scales=scales, rounded=rounded, **others)
        except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
            raise UserError(f"{file}: does not describe a quantization ({error!r}); run quantize again") from None
