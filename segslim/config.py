"""The schema of conf/: one frozen dataclass a group, with the type and range of every key. No Paddle here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import AfterValidator, ConfigDict, Field, ValidationError, with_config

from segslim.command_line import expanded
from segslim.errors import UserError
from segslim.files import reader

Positive = Annotated[int, Field(gt=0, lt=1 << 31)]
Count = Annotated[int, Field(ge=0, lt=1 << 31)]
Side = Annotated[int, Field(gt=0, le=1 << 14)]
Size = Annotated[tuple[Side, Side], Field(description="width, height in pixels, as PaddleSeg's target_size")]
Level = Annotated[int, Field(ge=0, le=255)]
Colour = Annotated[tuple[Level, Level, Level], Field(description="red, green, blue")]
FloatType = Literal["float32", "bfloat16", "float16"]
Targets = list[dict[str, Any]]  # nodes with a `_target_`, instantiated where they are used

_strict = with_config(ConfigDict(extra="forbid"))


@_strict
@dataclass(frozen=True)
class ImageInput:
    """How an exported graph takes images: scale * image - mean, divided by std, of images of 0 to 255."""

    mean: list[float] | None = None
    std: list[Annotated[float, Field(gt=0)]] | None = None
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1 / 255
    order: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["auto", "NCHW", "NHWC"] = "auto"


@_strict
@dataclass(frozen=True)
class ScoresOutput:
    """What an exported graph gives, see segslim.exported.ExportedNetwork."""

    name: str | None = None
    kind: Literal["auto", "logits", "softmax", "sigmoid", "labels"] = "auto"
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    classes: list[int] | dict[str, int] | None = None


@_strict
@dataclass(frozen=True)
class Model:
    name: str
    network: dict[str, Any]
    loss: dict[str, Any]
    file: str | None = None
    input: ImageInput | None = None
    output: ScoresOutput | None = None


@_strict
@dataclass(frozen=True)
class Recipe:
    """What training on this data set takes; `train` and `retrain` start from it."""

    iters: Positive
    retrain_iters: Positive
    batch_size: Positive
    learning_rate: Annotated[float, Field(gt=0)]


@_strict
@dataclass(frozen=True)
class Dataset:
    name: str
    source: dict[str, Any]
    num_classes: Annotated[int, Field(ge=2)]
    ignore_index: Annotated[int, Field(ge=0, le=255)]
    size: Size
    train_transforms: Targets
    val_transforms: Targets
    recipe: Recipe
    root: str | None = None
    labelled: bool = True
    channels: Positive = 3
    max_value: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    label_map: dict[int, Annotated[int, Field(ge=0, le=255)]] | None = None
    on_error: Literal["raise", "skip"] = "raise"
    classes: list[str] | None = None
    colours: list[Colour] | None = None


Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["auto"]


@_strict
@dataclass(frozen=True)
class Training:
    """Of `auto`, see `settled` in segslim.stages.train."""

    iters: Positive
    batch_size: Positive
    learning_rate: Rate
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    power: Annotated[float, Field(ge=0)]
    warmup_iters: Count
    warmup_start_lr: Annotated[float, Field(ge=0)] | None
    eval_interval: Positive
    save_interval: Positive
    amp: bool
    processes: Literal["auto"] | Positive
    optimizer: Literal["auto", "sgd", "adam"] | dict[str, Any]
    schedule: dict[str, Any] | None
    ema: Annotated[float, Field(gt=0, lt=1)] | None
    early_stop: Positive | None
    freeze_batch_norm: bool | Literal["auto"]
    evaluate_start: bool


@_strict
@dataclass(frozen=True)
class Train(Training):
    checkpoint: str | None = None
    ignore_mismatched_heads: bool = False


@_strict
@dataclass(frozen=True)
class Distill:
    kind: Literal["auto", "none", "logits", "channel_wise"]
    weight: Annotated[float, Field(gt=0)]
    temperature: Annotated[float, Field(gt=0)]
    teacher: str | None = None


@_strict
@dataclass(frozen=True)
class Retrain(Training):
    augmentation: Literal["auto", "dataset", "flip"]
    distill: Distill


@_strict
@dataclass(frozen=True)
class Analysis:
    images: Positive | None = None
    ratios: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)] = field(default_factory=list)


@_strict
@dataclass(frozen=True)
class Reconstruct:
    """What the stage reconstruct, and the criterion obc, run the network on; see segslim.channels.reconstruction."""

    images: Annotated[int, Field(ge=8)]
    positions: Positive
    ridge: Annotated[float, Field(gt=0)]


@_strict
@dataclass(frozen=True)
class Fisher:
    """What the criterion fisher measures on: images without labels, and draws of labels for each."""

    images: Positive
    draws: Positive


@_strict
@dataclass(frozen=True)
class Taylor:
    """What the criterion taylor measures on."""

    batches: Positive


def _rising(shares: list[float]) -> list[float]:
    if shares != sorted(set(shares)) or shares[-1] != 1:
        raise ValueError("should rise to 1, as [0.5, 1] does")
    return shares


Schedule = Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1), AfterValidator(_rising)]


@_strict
@dataclass(frozen=True)
class Calibration:
    images: Annotated[int, Field(ge=4)]
    observer: str
    percentile: Annotated[float, Field(gt=0.5, le=1)]
    equalize: bool
    rounding: Literal["nearest", "gram"]
    bias_correction: bool


LayerType = Literal["Conv2D", "Conv2DTranspose", "Linear"]


def _layer_types() -> list[LayerType]:
    return ["Conv2D", "Conv2DTranspose", "Linear"]


@_strict
@dataclass(frozen=True)
class Qat:
    """PaddleSlim's options of the same names."""

    weight_quantize_type: Literal["abs_max", "channel_wise_abs_max"] = "channel_wise_abs_max"
    activation_quantize_type: Literal["moving_average_abs_max"] = "moving_average_abs_max"
    weight_bits: Annotated[int, Field(ge=2, le=8)] = 8
    activation_bits: Annotated[int, Field(ge=2, le=8)] = 8
    moving_rate: Annotated[float, Field(gt=0, lt=1)] = 0.9
    quantizable_layer_type: Annotated[list[LayerType], Field(min_length=1)] = field(default_factory=_layer_types)
    pact: bool = False
    fuse_conv_bn: bool = False
    learning_rate_factor: Annotated[float, Field(gt=0, le=1)] = 0.1


def _span(ratios: tuple[float, float]) -> tuple[float, float]:
    if ratios[1] - ratios[0] < 0.05 - 1e-9:
        raise ValueError("should be the least and the most, at least 0.05 apart, as [0.1, 0.8]")
    return ratios


Share = Annotated[float, Field(gt=0, lt=1)]


@_strict
@dataclass(frozen=True)
class Front:
    """Which networks a front is made of: `points` of them, at ratios that it places itself within `ratios`."""

    points: Annotated[int, Field(ge=2, le=1000)]
    ratios: Annotated[tuple[Share, Share], AfterValidator(_span)]
    align: Annotated[list[Positive], Field(min_length=1)]
    precisions: Annotated[list[Literal["float32", "int8"]], Field(min_length=1)]


Bounded = Literal["miou_loss", "latency_ms", "latency_ratio", "size_mb", "flops_ratio"]


@_strict
@dataclass(frozen=True)
class Compress:
    """A strategy: its name, its stages in order, and the keys that those stages read."""

    name: str
    stages: list[str]
    after: list[str] = field(default_factory=list)
    ratio: Annotated[float, Field(gt=0, lt=1)] | None = None
    criterion: str | None = None
    allocation: Literal["auto", "equal_loss", "global", "uniform"] | None = None
    align: Positive = 1
    skip: list[str] = field(default_factory=list)
    rules: dict[str, str] = field(default_factory=dict)
    schedule: Schedule = field(default_factory=lambda: [1.0])
    taylor: Taylor | None = None
    fisher: Fisher | None = None
    reconstruct: Reconstruct | None = None
    analysis: Analysis | None = None
    calibration: Calibration | None = None
    activations: Literal["uint8", "int8"] = "uint8"
    keep_float: list[str] | Literal["auto"] = field(default_factory=list)
    miou_loss: Annotated[float, Field(ge=0, lt=1)] | None = None
    qat: Qat | None = None
    precisions: Annotated[list[FloatType], Field(min_length=1)] | None = None
    front: Front | None = None
    latency_ms: Annotated[float, Field(gt=0)] | None = None
    latency_ratio: Share | None = None
    size_mb: Annotated[float, Field(gt=0)] | None = None
    flops_ratio: Share | None = None
    goal: Literal["auto", "latency", "miou", "size"] = "auto"
    soft: list[Bounded] = field(default_factory=list)
    pessimistic: bool = True
    retrain: bool = False
    hours: Annotated[float, Field(gt=0)] = 2.0


@_strict
@dataclass(frozen=True)
class Stages:
    """What every strategy's own stages stand between."""

    first: list[str]
    last: list[str]


@_strict
@dataclass(frozen=True)
class Export:
    size: Size | Literal["dynamic"]
    output: Literal["argmax", "softmax", "logits"]
    tolerance: Annotated[float, Field(gt=0)]
    target: Literal["auto", "avx2", "vnni", "arm", "any"]
    formats: list[Literal["onnx", "paddle", "openvino", "mnn", "ncnn"]]
    fp16: bool
    opset: Annotated[int, Field(ge=13, le=22)]
    preprocess: bool | Literal["rgb", "bgr"]


@_strict
@dataclass(frozen=True)
class Evaluation:
    """How images are predicted beside the plain way: by sliding windows, at several scales, mirrored."""

    crop_size: Size | None = None
    stride: Size | None = None
    scales: Annotated[list[Annotated[float, Field(gt=0, le=16)]], Field(min_length=1)] = field(
        default_factory=lambda: [1.0]
    )
    flips: list[Literal["horizontal", "vertical"]] = field(default_factory=list)
    auc_roc: bool = False

    @property
    def is_augmented(self) -> bool:
        """Whether it is any other than the plain way."""
        return self.crop_size is not None or self.scales != [1.0] or bool(self.flips)


@_strict
@dataclass(frozen=True)
class Engine:
    name: str
    candidates: Annotated[list[str], Field(min_length=1)]
    threads: Count
    precision: FloatType
    formats: list[str] = field(default_factory=lambda: ["paddle", "onnx"])


@_strict
@dataclass(frozen=True)
class Benchmark:
    warmup: Count
    iters: Positive
    settle: Annotated[float, Field(ge=0)]
    seconds: Annotated[float, Field(ge=0)]
    advice: bool
    again: bool
    when: Literal["now", "end"]
    layers: bool
    host: Annotated[str, Field(pattern=r"^[^-\s]\S*$")] | None
    python: Annotated[str, Field(min_length=1)]
    results: str | None


@_strict
@dataclass(frozen=True)
class LoggerChoice:
    name: str
    writer: dict[str, Any] | None
    interval: Positive


@_strict
@dataclass(frozen=True)
class Bound:
    figure: str
    at_least: float


@_strict
@dataclass(frozen=True)
class Objective:
    figures: Annotated[list[str], Field(min_length=1)]
    bounds: list[Bound]
    penalty: Annotated[float, Field(gt=0)]


@_strict
@dataclass(frozen=True)
class Config:
    model: Model
    dataset: Dataset
    stages: Stages
    train: Train
    compress: Compress
    retrain: Retrain
    export: Export
    evaluation: Evaluation
    engine: Engine
    benchmark: Benchmark
    logger: LoggerChoice
    objective: Objective
    seed: Count
    device: Literal["cpu", "gpu"]
    num_workers: Annotated[int, Field(ge=0, le=1024)]
    store: Annotated[str, Field(min_length=1)]
    verbose: bool


def validate(composed: DictConfig) -> Config:
    """Returns the typed config that `composed` stands for, with every interpolation resolved and ~ expanded.

    Raises UserError in one line, naming the key, the value and what is allowed.
    """
    try:
        plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = error.full_key
        raise UserError(f"{key} has no value: give {key}=... on the command line or in conf/") from None
    except OmegaConfBaseException as error:
        first_line = str(error).splitlines()[0]
        raise UserError(f"{error.full_key}: {first_line}") from None
    try:
        return reader(Config).validate_python(_with_paths(plain))
    except ValidationError as error:
        raise UserError("; ".join(_in_words(fault) for fault in _distinct(error))) from None


def _with_paths(node: Any) -> Any:
    """With ~ and $NAME at the beginning of a text expanded: no key takes them for anything but a path."""
    if isinstance(node, Mapping):
        return {key: _with_paths(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_with_paths(value) for value in node]
    return expanded(node) if isinstance(node, str) else node


def _distinct(error: ValidationError) -> list[Any]:
    """One fault a key: a union reports one for each of its types."""
    by_key: dict[str, Any] = {}
    for fault in error.errors(include_url=False):
        earlier = by_key.setdefault(_key(fault), fault)
        if earlier is not fault:
            earlier["msg"] += f", or {fault['msg']}"
    return list(by_key.values())


def _key(fault: Any) -> str:
    # a union adds the type that it tried, which is no key: tuple[...], constrained-float
    return ".".join(takewhile(lambda part: not {"[", "-"} & {*part}, map(str, fault["loc"])))


def _in_words(fault: Any) -> str:
    key = _key(fault)
    if fault["type"] == "missing" and isinstance(fault["loc"][-1], int):
        return f"{key.rpartition('.')[0]}={fault['input']}: should have more entries, as [512,512] has two"
    if fault["type"] == "unexpected_keyword_argument":
        return f"{key} is not a key that exists: remove it"
    if fault["type"] in ("missing", "missing_argument"):
        return f"{key} has no value: give {key}=..."
    words = fault["msg"].replace("Input should", "should").replace("a valid tuple", "a list, as [512,512]")
    return f"{key}={fault['input']}: {words.removeprefix('Value error, ')}"
