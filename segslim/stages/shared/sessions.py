"""Deployed files in their engines: opened as the config wants them, run, and judged."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segslim.config import Config
from segslim.data import Pair
from segslim.deployment.deployment import Deployment
from segslim.deployment.engines import Candidate, Choice, Session, open_session, select
from segslim.deployment.engines.onnx_runtime import open_in_float
from segslim.deployment.engines.process import TimedSession
from segslim.evaluation.latency import measure, paired_ratio
from segslim.evaluation.metrics import Metrics, evaluate
from segslim.hardware import cores
from segslim.networks.network import image_channels
from segslim.plugins import import_path
from segslim.stages.shared.images import Batches, batches

if TYPE_CHECKING:
    import onnx

TIE = 0.05  # of the time: engines that differ by less are as good as each other
TRIAL, RUNS, ROUNDS = 5, 32, 8  # runs of each engine; after a trial, in one round, those go on that may be the fastest
HOPELESS = 2.0  # times the fastest of the trial


def operator_rules(config: Config) -> dict[str, Any]:
    """compress.rules, imported. Raises UserError for one that does not exist."""
    return {kind: import_path(path, f"compress.rules.{kind}") for kind, path in config.compress.rules.items()}


def export_size(config: Config) -> tuple[int, int] | None:
    """(width, height) of export.size, None where it is dynamic."""
    return None if config.export.size == "dynamic" else config.export.size


def float_graph(network: Any, config: Config, folder: Path) -> "onnx.ModelProto":
    """The graph that `export` will write, before quantization: its tensors have the same names."""
    import onnx

    from segslim.deployment.export import export_onnx, input_shape

    export_onnx(
        network,
        folder / "float.onnx",
        input_shape(export_size(config), image_channels(network)),
        output=config.export.output,
    )
    return onnx.load(folder / "float.onnx")


def logits_graph(network: Any, config: Config, file: Path) -> "onnx.ModelProto":
    """The float graph that gives logits at dataset.size; written to `file` on the way."""
    import onnx

    from segslim.deployment.export import export_onnx, input_shape

    export_onnx(network, file, input_shape(config.dataset.size, image_channels(network)), output="logits")
    return onnx.load(file)


def write_class_ids_graph(network: Any, config: Config, file: Path) -> None:
    """Writes the one that gives class ids at dataset.size, by which a network is judged on its way."""
    from segslim.deployment.export import export_onnx, input_shape

    export_onnx(network, file, input_shape(config.dataset.size, image_channels(network)), output="argmax")


def threads(config: Config) -> int:
    """engine.threads, where 0 stands for every core that this process may use."""
    return config.engine.threads or cores()


def ranked_engines(
    deployment: Deployment,
    image: np.ndarray,
    config: Config,
    first: Mapping[str, Any] | None = None,
    settle: float = 0.25,
) -> list[Choice]:
    """The config's candidates that give what the file means, as it is computed in float: the best first.

    That is the fastest one, unless it is no more than TIE faster than one listed before it: timings that are nearly
    equal would choose now this one, now that. `first` is what `select` gave for the dense network: its engine stands
    before the list, and what was hopeless there is not tried again. `settle` is as of `measure`.
    """
    precision = deployment.precision
    floats = precision.compute or (config.engine.precision,)
    candidates = [Candidate(name, compute) for name in config.engine.candidates for compute in floats]
    if first is not None:
        candidates.sort(key=lambda one: (one.engine, one.precision) != (first["engine"], first["precision"]))
    hopeless = _hopeless(first) if first is not None else {}
    checked = open_in_float(deployment, threads(config))  # export compared the float file with the network itself
    feed = {checked.input_names[0]: image}

    def ranking(runs: Mapping[Candidate, Callable[[], object]]) -> dict[Candidate, float]:
        if len(runs) == 1:
            return {candidate: measure({"": run}, 2, 15)[""].quickest for candidate, run in runs.items()}
        with timed_sessions(
            {str(one): (deployment, one.engine, one.precision) for one in runs}, image, config
        ) as sessions:
            timed = measure(sessions, 1, TRIAL, settle, rounds=1)
            least = min(latency.quickest for latency in timed.values())
            near = {name: sessions[name] for name, latency in timed.items() if latency.quickest < HOPELESS * least}
            timed |= measure(near, 0, RUNS, settle, rounds=ROUNDS) if len(near) > 1 else {}
        fastest = min((timed[name] for name in near), key=lambda latency: latency.quickest)
        as_fast = [name for name in near if paired_ratio(fastest, timed[name]).low <= 1 + TIE]
        ranked = sorted(runs, key=lambda one: (str(one) != as_fast[0], timed[str(one)].quickest))
        return {one: timed[str(one)].quickest for one in ranked}

    chosen = select(
        deployment,
        [one for one in candidates if one not in hopeless],
        threads=threads(config),
        inputs=feed,
        exact=not precision.is_int8 and floats == ("float32",),
        reference=checked.run(feed)[0],
        ranking=ranking,
    )
    return [*chosen, *(Choice(one, chosen[0].measure, excluded=hopeless[one]) for one in candidates if one in hopeless)]


def _hopeless(engine: Mapping[str, Any]) -> dict[Candidate, str]:
    """What took HOPELESS times as long as the fastest in the same precision, and why that excludes it."""
    timed = {Candidate(**choice["candidate"]): choice["latency_ms"] for choice in engine["candidates"]}
    timed = {one: milliseconds for one, milliseconds in timed.items() if milliseconds is not None}
    least = {p: min(ms for one, ms in timed.items() if one.precision == p) for p in {one.precision for one in timed}}
    return {
        one: f"took {ms / least[one.precision]:.1f} times as long as the fastest with the dense network"
        for one, ms in timed.items()
        if ms >= HOPELESS * least[one.precision]
    }


@contextmanager
def timed_sessions(
    wanted: Mapping[str, tuple[Deployment, str, str]], image: np.ndarray, config: Config, all_of_them: bool = False
) -> Iterator[dict[str, TimedSession]]:
    """Those of (deployment, engine, precision), each in a process of its own while it lasts, which runs on `image`.

    Without those that do not open, such as int8 in Paddle Inference; where it is to be `all_of_them`, they raise
    UserError.
    """
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(
                TimedSession(engine, deployment, image, threads=threads(config), precision=precision)
            )
            for name, (deployment, engine, precision) in wanted.items()
        }
        yield {name: session for name, session in started.items() if all_of_them or session.opens()}


def open_selected(engine: Mapping[str, Any], deployment: Deployment | Path, config: Config) -> Session:
    """Loads a deployment with the engine and precision that the stage `select` chose for it."""
    return open_session(engine["engine"], deployment, threads=threads(config), precision=engine["precision"])


def batch(config: Config) -> np.ndarray:
    """One random image of dataset.size: what every latency here is that of."""
    width, height = config.dataset.size
    return np.random.default_rng(0).standard_normal((1, config.dataset.channels, height, width), np.float32)


def prediction(session: Session, config: Config) -> Callable[[], list[np.ndarray]]:
    """Runs the session, opened in this process, on it."""
    image = batch(config)
    return lambda: session.run({session.input_names[0]: image})


def score(
    session: Session,
    config: Config,
    images: Batches,
    progress: Callable[[int], None] | None = None,
    each: Callable[[np.ndarray], None] | None = None,
) -> Metrics:
    """The metrics of a session whose output is class ids, probabilities or logits. progress, each: as of `evaluate`."""
    name = session.input_names[0]

    def predict(image: np.ndarray) -> np.ndarray:
        return class_ids(session.run({name: image})[0])

    return evaluate(predict, images, config.dataset.num_classes, config.dataset.ignore_index, progress, each)


def quality(config: Config) -> str:
    """What the mIoU of a network's predictions is called, by what stands for the labels (see pseudo_label)."""
    return "mIoU" if config.dataset.labelled else "mIoU against the dense network"


def score_network(network: Any, config: Config, pairs: Sequence[Pair], folder: Path) -> Metrics:
    """The same for a network in training, exported to a file in `folder`: an engine is 8 to 40 times faster than it."""
    file = folder / "validation.onnx"
    write_class_ids_graph(network, config, file)
    session = open_session("onnxruntime", file, threads=threads(config))
    return score(session, config, batches(config, pairs))


def class_ids(output: np.ndarray) -> np.ndarray:
    """N,H,W class ids of a deployed network's output, whichever of its three forms it has."""
    return output if output.ndim == 3 else output.argmax(axis=1)


def open_both(
    baseline: tuple[Mapping[str, Any], Deployment], compressed: tuple[Mapping[str, Any], Deployment], config: Config
) -> dict[str, Session]:
    """{"baseline", "compressed"} of (engine, deployment) each; where nothing was compressed "compressed" alone."""
    roles = {"baseline": baseline, "compressed": compressed}
    if baseline[1] == compressed[1]:
        del roles["baseline"]
    return {role: open_selected(engine, deployment, config) for role, (engine, deployment) in roles.items()}
