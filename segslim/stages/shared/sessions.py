"""Deployed files in their engines: opened as the config wants them, run, and judged."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from segslim.config import Config
from segslim.data import Pair
from segslim.deployment.deployment import Deployment
from segslim.deployment.engines import Candidate, Choice, Session, Unreachable, open_session, select
from segslim.deployment.engines.onnx_runtime import open_in_float
from segslim.deployment.engines.process import HERE, Place, TimedSession
from segslim.devices.board import Board, board
from segslim.devices.packed import Results, random_batch
from segslim.errors import UserError
from segslim.evaluation.latency import measure, paired_ratio
from segslim.evaluation.metrics import Metrics, evaluate
from segslim.hardware import cores, machine_identity
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
    there: Board | Results | None = None,
) -> list[Choice]:
    """The config's candidates that give what the file means, as it is computed in float: the best first.

    That is the fastest one, unless it is no more than TIE faster than one listed before it: timings that are nearly
    equal would choose now this one, now that. `first` is what `select` gave for the dense network: its engine stands
    before the list, and what was hopeless there is not tried again. `settle` is as of `measure`. On a board, `there`,
    a candidate is asked what it gives, too; whose times are read from a file, gives its output here.
    """
    precision = deployment.precision
    floats = precision.compute or (config.engine.precision,)
    candidates = [Candidate(name, compute) for name in config.engine.candidates for compute in floats]
    if first is not None:
        candidates.sort(key=lambda one: (one.engine, one.precision) != (first["engine"], first["precision"]))
    left_out = _hopeless(first) if first is not None else {}
    if isinstance(there, Results):
        recorded = {one: there.latency(one.engine, deployment, one.precision) for one in candidates}
        left_out |= {one: f"was not timed on {there.machine['host']}" for one in candidates if recorded[one] is None}
        check_recorded(recorded.values())
    checked = open_in_float(deployment, threads(config))  # export compared the float file with the network itself
    feed = {checked.input_names[0]: image}

    def ranking(runs: Mapping[Candidate, Callable[[], object]]) -> dict[Candidate, float]:
        if isinstance(there, Results):
            timed = {str(one): latency for one in runs if (latency := recorded[one]) is not None}
            near: Mapping[str, Any] = timed
        elif len(runs) == 1:
            ((one, run),) = runs.items()
            return {one: measure({"": opened.get(one, run)}, 2, 15)[""].quickest}
        else:
            if there is None:
                named = {str(one): (deployment, one.engine, one.precision) for one in runs}
                sessions = stack.enter_context(timed_sessions(named, image, config))
            else:
                sessions = {str(one): opened[one] for one in runs}
            timed = measure(sessions, 1, TRIAL, settle, rounds=1)
            least = min(latency.quickest for latency in timed.values())
            near = {name: sessions[name] for name, latency in timed.items() if latency.quickest < HOPELESS * least}
            timed |= measure(near, 0, RUNS, settle, rounds=ROUNDS) if len(near) > 1 else {}
        fastest = min((timed[name] for name in near), key=lambda latency: latency.quickest)
        as_fast = [name for name in near if paired_ratio(fastest, timed[name]).low <= 1 + TIE]
        ranked = sorted(runs, key=lambda one: (str(one) != as_fast[0], timed[str(one)].quickest))
        return {one: timed[str(one)].quickest for one in ranked}

    opened: dict[Candidate, TimedSession] = {}
    with ExitStack() as stack:
        if isinstance(there, Board):
            start = stack.enter_context(_starting(image, config, there))

            def open_there(one: Candidate) -> Session:
                opened[one] = start(deployment, one.engine, one.precision)
                return opened[one]

        chosen = select(
            deployment,
            [one for one in candidates if one not in left_out],
            threads=threads(config),
            inputs=feed,
            exact=not precision.is_int8 and floats == ("float32",),
            reference=checked.run(feed)[0],
            ranking=ranking,
            opened=open_there if isinstance(there, Board) else None,
        )
    return [*chosen, *(Choice(one, chosen[0].measure, excluded=left_out[one]) for one in candidates if one in left_out)]


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
def _starting(image: np.ndarray, config: Config, place: Place) -> Iterator[Callable[..., TimedSession]]:
    """What starts a session that lasts as long, of (deployment, engine, precision), which runs on `image`."""
    with ExitStack() as stack:
        batch = Path(stack.enter_context(TemporaryDirectory()), "batch.npy")
        np.save(batch, image)
        stack.enter_context(place.alone())

        def start(deployment: Deployment, engine: str, precision: str) -> TimedSession:
            # 0 is left to a board, which has other cores
            wanted = threads(config) if place is HERE else config.engine.threads
            given = place.given(engine, deployment, batch)
            return stack.enter_context(TimedSession(engine, given, threads=wanted, precision=precision, place=place))

        yield start


@contextmanager
def timed_sessions(
    wanted: Mapping[str, tuple[Deployment, str, str]],
    image: np.ndarray,
    config: Config,
    all_of_them: bool = False,
    place: Place = HERE,
) -> Iterator[dict[str, TimedSession]]:
    """Those of (deployment, engine, precision), each in a process of its own while it lasts, which runs on `image`.

    Without those that do not open, such as int8 in Paddle Inference; where it is to be `all_of_them`, they raise
    UserError.
    """
    with _starting(image, config, place) as start:
        started = {}
        for name, which in wanted.items():
            try:
                started[name] = start(*which)
                if place is not HERE:
                    started[name].opens()  # one after the other: sshd refuses many that come at once
            except UserError as error:  # a board's engines run not every deployment
                if all_of_them or isinstance(error, Unreachable):
                    raise
        yield {name: session for name, session in started.items() if all_of_them or session.opens()}


def other_machine(config: Config) -> Board | Results | None:
    """Whose times count, where they are not this machine's: a board's, or those that one has written to a file."""
    options = config.benchmark
    if options.host is not None and options.results is not None:
        raise UserError("benchmark.host and benchmark.results: give one of them")
    if options.results is not None:
        return Results.read(options.results)
    return None if options.host is None else board(options.host, options.python)


def timed_on(config: Config) -> dict[str, Any]:
    """The machine whose times count."""
    found = other_machine(config)
    return machine_identity() if found is None else found.machine


def check_recorded(recorded: Iterable[object]) -> None:
    """Raises UserError unless a latency is among them."""
    if not any(recorded):
        raise UserError(
            "benchmark.results is of other deployments than this command's: `python -m segslim devices pack RUN`"
            " packs those of its run"
        )


def open_selected(engine: Mapping[str, Any], deployment: Deployment | Path, config: Config) -> Session:
    """Loads a deployment with the engine and precision that the stage `select` chose for it."""
    return open_session(engine["engine"], deployment, threads=threads(config), precision=engine["precision"])


def batch(config: Config) -> np.ndarray:
    """One random image of dataset.size: what every latency here is that of."""
    return random_batch(config.dataset.size, config.dataset.channels)


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
