"""place: dataset, quantized checkpoint, the first network's metrics -> checkpoint that is as fast as compress.miou_loss
allows: which layers are int8, or none, and the float type of the rest, by what engines are measured to make of it.
"""

import dataclasses
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from segslim.config import Config
from segslim.data.source import Dataset
from segslim.deployment.deployment import Precision, precision_in_words
from segslim.deployment.engines import Session, available, computes_in, open_session, runs_int8
from segslim.errors import UserError
from segslim.evaluation.latency import Latency, measure, paired_ratio
from segslim.hardware import machine_identity
from segslim.networks.checkpoint import Checkpoint
from segslim.pipeline.stage import Workspace, stage
from segslim.quantization.spec import QuantizationSpec
from segslim.stages.shared import ENGINES, PADDLE
from segslim.stages.shared.images import batches, usable_pairs
from segslim.stages.shared.sessions import export_size, prediction, score, threads

#: Of each run in a comparison.
WARMUP, ITERS, SETTLE = 2, 30, 0.02
#: What is left float must save this much, and its interval something, twice: less cannot be distinguished from none.
FASTER = 0.98
#: Into how many stretches the layers are cut; first long ones, whose ends convert least.
STRETCHES = (8, 16)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Variant:
    """A way to deploy a network: in int8 but for the layers of the weights `kept` (None: in float), in an engine."""

    kept: tuple[str, ...] | None
    engine: str
    compute: str

    def __str__(self) -> str:
        precision = Precision("float32" if self.kept is None else "int8")
        layers = f" with {len(self.kept)} layers float" if self.kept else ""
        return f"{precision_in_words(precision, self.compute)}{layers} on {self.engine}"


@stage(
    does="placing int8",
    gives=Checkpoint,
    reads=[
        *("dataset.size", "dataset.channels", "dataset.val_transforms", "dataset.num_classes", "dataset.ignore_index"),
        *("export.size", "export.output", "export.tolerance", "engine"),
        *("compress.miou_loss", "compress.precisions"),
    ],
    ignores=["dataset.source", "dataset.on_error"],
    packages=(*PADDLE, "paddle2onnx", "onnx", *ENGINES[:2]),
)
def place(
    dataset: Dataset, checkpoint: Checkpoint, baseline_metrics: dict[str, Any], config: Config, workspace: Workspace
) -> Checkpoint:
    """Gives the checkpoint of the fastest variant that loses at most compress.miou_loss to the first network.

    Variants: int8, int8 with those stretches of layers float that are slower in int8, int8 with the noisiest layers
    float, and float; each in every engine and float type. mIoU is that of the validation images in the engine itself.
    Where none holds the bound, a warning names the nearest. A killed run goes on behind what was measured.
    """
    trials = _Trials(dataset, checkpoint, config, workspace)
    dense, loss = float(baseline_metrics.get("agreement", baseline_metrics)["miou"]), config.compress.miou_loss or 0.0
    times = trials.ranked(trials.variants())
    fastest = next(variant for variant in times if variant.kept is not None)
    placed = trials.placed(fastest)
    for better in (placed, trials.accurate(placed, dense, loss)):
        if better not in times:
            times[better] = times[fastest] * trials.ratio(better, fastest)[0]
    judged: dict[Variant, float] = {}
    for variant in sorted(times, key=lambda variant: times[variant]):
        judged[variant] = trials.miou(variant)
        if judged[variant] >= dense - loss:
            break
    best = max(judged, key=lambda variant: (judged[variant] >= dense - loss, judged[variant]))
    said = f"{best}, {times[best]:.2f} ms, mIoU {judged[best] - dense:+.4f}"
    if judged[best] < dense - loss:
        logger.warning("compress.miou_loss=%s cannot be kept: nearest is %s", loss, said)
    workspace.summarize(said)
    record = [
        {**dataclasses.asdict(variant), "latency_ms": times[variant], "miou": judged.get(variant)} for variant in times
    ]
    return checkpoint.quantized(trials.spec(best), placement=record)


place.depends(lambda config: machine_identity())


@place.check
def check_place(config: Config) -> None:
    """Raises UserError where the times that count are of another machine."""
    if config.benchmark.host is not None or config.benchmark.results is not None:
        raise UserError(
            "compress.miou_loss: int8 is placed by times of this machine alone; give compress.keep_float=auto, or leave"
            " benchmark.host and benchmark.results out"
        )


@place.check
def check_order(config: Config, earlier: tuple[str, ...]) -> None:
    """Raises UserError when nothing is quantized that could be placed, or there is no bound."""
    if "quantize" not in earlier:
        raise UserError("compress.stages: place needs an int8 network; put quantize before it")
    if config.compress.miou_loss is None:
        raise UserError("compress.miou_loss has no value: place needs it; give compress.miou_loss=0.005")


class _Trials:
    """Variants of a checkpoint as files in the scratch folder, timed and judged; what is measured is kept there."""

    def __init__(self, dataset: Dataset, checkpoint: Checkpoint, config: Config, workspace: Workspace) -> None:
        from segslim.deployment import export as exporting
        from segslim.quantization.qat import layer_names

        assert checkpoint.quantization is not None  # quantize comes before
        self._checkpoint, self._given, self._config = checkpoint, checkpoint.quantization, config
        self._pairs, self._workspace = usable_pairs(config, dataset, "val"), workspace
        network = checkpoint.network()
        self._names = layer_names(network)
        size, options = export_size(config), config.export
        folder = workspace.scratch / "float"
        self._float = exporting.export(network, folder, size=size, output=options.output, tolerance=options.tolerance)
        self._opened: dict[Variant, Session] = {}  # the two last ones
        self._file = workspace.scratch / "measured.json"
        self._measured: dict[str, Any] = json.loads(self._file.read_text()) if self._file.exists() else {}

    def variants(self) -> list[Variant]:
        """In float and as it was quantized, in every engine and type that there is here."""
        engines = available(self._config.engine.candidates)
        wanted = self._config.compress.precisions or ["float32"]
        floats = [Variant(None, engine, each) for engine in engines for each in computes_in(engine) if each in wanted]
        kept = tuple(self._given.keep_float)
        return [*floats, *(dataclasses.replace(each, kept=kept) for each in floats if runs_int8(each.engine))]

    def spec(self, variant: Variant) -> QuantizationSpec:
        if variant.kept is None:
            return QuantizationSpec(precision="float32", compute=(variant.compute,))
        return dataclasses.replace(self._given, keep_float=variant.kept, compute=(variant.compute,))

    def ranked(self, variants: Sequence[Variant]) -> dict[Variant, float]:
        """{variant: milliseconds} of those that open, timed in turn, the fastest first."""
        keys = {variant: f"ms {variant} {variant.kept}" for variant in variants}
        if not set(keys.values()) & set(self._measured):
            opened = {variant: session for variant in variants if (session := self._open(variant)) is not None}
            latencies = zip(opened, self._times(opened.values()), strict=True)
            self._keep({keys[variant]: latency.quickest for variant, latency in latencies})
        times = {variant: self._measured[key] for variant, key in keys.items() if key in self._measured}
        return dict(sorted(times.items(), key=lambda item: item[1]))

    def placed(self, variant: Variant) -> Variant:
        """With each stretch of layers float that makes it faster, on top of those that did before."""
        layers = [weight for weight in self._layers if weight not in (variant.kept or ())]
        stretches = [part.tolist() for count in STRETCHES for part in np.array_split(layers, min(count, len(layers)))]
        for done, stretch in enumerate(stretches, 1):
            kept = tuple(dict.fromkeys((*(variant.kept or ()), *stretch)))
            trial = dataclasses.replace(variant, kept=kept)
            if kept != variant.kept and set(kept) < set(self._layers):  # one layer at least is int8
                twice = [self.ratio(trial, variant, which) for which in ("", "again ")]
                faster = all(ratio < FASTER and high < 1 for ratio, high in twice)
                variant = trial if faster else variant
            self._workspace.progress("a stretch of layers float at a time", done, len(stretches))
        return variant

    def accurate(self, variant: Variant, dense: float, loss: float) -> Variant:
        """With the noisiest layers float by which it keeps the bound (keep_float=auto), where it does not as it is."""
        from segslim.deployment.cost import flops_by_weight
        from segslim.quantization.mixed_precision import choose_float_layers

        given = variant.kept or ()
        noise: Mapping[str, float] = self._checkpoint.measured.get("layers", {})
        ratios = {weight: noise[name] for weight, name in self._names.items() if name in noise and weight not in given}
        kept, _ = choose_float_layers(
            dict(sorted(ratios.items(), key=lambda item: item[1])),
            flops_by_weight(self._float.onnx_file, self._config.dataset.size),
            lambda more: dense if more is None else self.miou(dataclasses.replace(variant, kept=(*given, *more))),
            loss,
            lambda done, total: self._workspace.progress("one layer float at a time", done, total),
        )
        return dataclasses.replace(variant, kept=(*given, *kept))

    def miou(self, variant: Variant) -> float:
        """On the validation images, in the variant's engine."""

        def judged() -> float:
            session = self._open(variant)
            return score(session, self._config, batches(self._config, self._pairs)).miou if session else 0.0

        return float(self._remember(f"miou {variant} {variant.kept}", judged))

    def ratio(self, variant: Variant, other: Variant, which: str = "") -> tuple[float, float]:
        """The latency of one in units of the other's, timed in turn, and the upper end of its 95 % interval."""

        def timed() -> tuple[float, float]:
            opened = [self._open(each) for each in (other, variant)]
            if None in opened:
                return np.inf, np.inf
            base, trial = self._times(opened)
            ratio = paired_ratio(base, trial)
            return ratio.value, ratio.high

        ratio, high = self._remember(f"ratio {which}{variant} {variant.kept} to {other} {other.kept}", timed)
        return ratio, high

    def _times(self, sessions: Iterable[Session | None]) -> list[Latency]:
        runs = {str(at): prediction(session, self._config) for at, session in enumerate(sessions) if session}
        return list(measure(runs, WARMUP, ITERS, SETTLE).values())

    @cached_property
    def _layers(self) -> list[str]:
        """The weights of the int8 layers, in order of execution."""
        import onnx

        from segslim.quantization.graph import Graph, folded_copy
        from segslim.quantization.placement import MATMUL_OPS, place_integers

        model = folded_copy(onnx.load(self._float.onnx_file))
        graph, integer = Graph.from_model(model), place_integers(model).integer
        nodes = [node for node in graph.nodes if node.op_type in MATMUL_OPS and node.output[0] in integer]
        return list(dict.fromkeys(node.input[1] for node in nodes if graph.is_constant(node.input[1])))

    def _open(self, variant: Variant) -> Session | None:
        """None where the engine does not run it, as Paddle Inference does not run int8."""
        import onnx

        from segslim.quantization.qdq import quantize

        deployment: Any = self._float
        if variant in self._opened:
            self._opened[variant] = self._opened.pop(variant)  # the last one now
            return self._opened[variant]
        if variant.kept is not None:
            model = onnx.load(self._float.onnx_file)
            quantize(model, self.spec(variant))
            deployment = self._workspace.scratch / "trial.onnx"
            onnx.save(model, deployment)
        while len(self._opened) > 1:  # keeps the one that trials are compared with
            del self._opened[next(iter(self._opened))]
        try:
            session = open_session(variant.engine, deployment, threads=threads(self._config), precision=variant.compute)
        except UserError as error:
            logger.info("%s: %s", variant, error)
            return None
        self._opened[variant] = session
        return session

    def _remember(self, key: str, measured: Callable[[], Any]) -> Any:
        if key not in self._measured:
            self._keep({key: measured()})
        return self._measured[key]

    def _keep(self, measured: Mapping[str, Any]) -> None:
        self._measured.update(measured)
        new = self._file.with_suffix(".new")  # a killed run leaves the old file whole
        new.write_text(json.dumps(self._measured, indent=1), encoding="utf-8")
        new.replace(self._file)
