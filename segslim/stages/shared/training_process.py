"""Training by one process or several: the number, and the way from a stage to its processes and back.

`python -m segslim.stages.shared.training_process` is such a process.
"""

import dataclasses
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np

from segslim.config import Config, Training
from segslim.data import Pair
from segslim.deployment.engines import open_session
from segslim.errors import deferred
from segslim.files import reader
from segslim.networks.checkpoint import Checkpoint
from segslim.networks.network import check_runs, weights_of
from segslim.pipeline.fingerprint import ConfigView, whole_config
from segslim.pipeline.stage import Stage, Workspace
from segslim.quantization.spec import QuantizationSpec
from segslim.stages.shared.images import batches
from segslim.stages.shared.sessions import float_graph, score, threads
from segslim.training.launch import Launch
from segslim.training.process_group import ALONE, ProcessGroup
from segslim.training.processes import Send, count_processes, run_processes, run_worker

log = logging.getLogger(__name__)
COMMAND = (sys.executable, "-m", "segslim.stages.shared.training_process")
RESULT = "checkpoint"  # in scratch: what the leading process gives

#: What each process of a group does for a stage; a function of a module, so that each can import it.
Share = Callable[[Config, Workspace, ProcessGroup], Checkpoint | None]


def by_processes(stage: str, share: Share, options: Training, config: Config, workspace: Workspace) -> Checkpoint:
    """The stage "train" or "retrain" by `options.processes`; returns what the leading process gives."""
    width, height = config.dataset.size
    pixels = options.iters * options.batch_size * width * height
    launch = Launch.of_this_process()
    count = count_processes(options.processes, config.device, options.batch_size, pixels)
    if launch is None and count == 1:
        return share(config, workspace, ALONE)  # type: ignore[return-value]
    job = {
        "stage": stage,
        "share": f"{share.__module__}:{share.__qualname__}",
        "inputs": {kind: str(folder) for kind, folder in workspace.inputs.items()},
        "config": dataclasses.asdict(whole_config(config)),
        "later": [f"{later.module}:{later.name}" for later in workspace.later],
        "artifact": str(workspace.artifact),
        "scratch": str(workspace.scratch),
    }
    listen = partial(_pass_on, workspace)
    with deferred() as stop:
        if launch is not None:
            launch.check(stage, options.batch_size)
            result = launch.train(COMMAND, job, config.device, listen, stop)
        else:
            log.info("%s: %d processes", stage, count)
            result = run_processes(COMMAND, count, job, config.device, listen, stop)
    workspace.summarize(str(result))
    return Checkpoint.load(workspace.scratch / RESULT)


def check_later_stages(network: Any, images: int, config: Config, workspace: Workspace) -> None:
    """Raises UserError for what this stage or a later one would refuse of this network or so few training images,
    whatever the weights become. No part of a training's fingerprint, since it changes nothing of the result.
    """
    whole = whole_config(config)
    check_runs(network, whole.dataset.size)
    named = {"network": network, "images": images, "config": whole, "scratch": workspace.scratch}
    for later in workspace.later:
        later.run_network_checks(named)


def _pass_on(workspace: Workspace, kind: str, content: Any) -> None:
    if kind == "progress":
        workspace.progress(*content)
    elif kind == "measured":
        workspace.measured(*content)


def work(job: Mapping[str, Any], group: ProcessGroup, send: Send) -> str:
    """This process's share of the job; the one that leads says how far it is, and saves the checkpoint."""
    from segslim.stages import STAGES

    later: tuple[Stage, ...] = tuple(resolve_name(path) for path in job["later"])
    workspace = Workspace(
        Path(job["artifact"]),
        Path(job["scratch"]),
        lambda what, done, total: send("progress", [what, done, total]),
        lambda iteration, numbers: send("measured", [iteration, dict(numbers)]),
        {kind: Path(folder) for kind, folder in job["inputs"].items()},
        later,
    )
    config = reader(Config).validate_python(job["config"])
    view: Any = ConfigView(config, STAGES[job["stage"]])
    checkpoint = resolve_name(job["share"])(view, workspace, group)
    if checkpoint is not None:
        checkpoint.save(workspace.scratch / RESULT)
    return workspace.result[0] if workspace.result else ""


@dataclass(frozen=True)
class QuantizedNetwork:
    """A network with fake-quantize layers. `plain` takes its weights; `graph` is the float ONNX graph; `start` is the
    network's state before it was trained.
    """

    network: Any
    plain: Any
    spec: QuantizationSpec
    graph: Any
    start: Mapping[str, Any]
    config: Config
    folder: Path

    @staticmethod
    def from_checkpoint(checkpoint: Checkpoint, config: Config, folder: Path) -> "QuantizedNetwork":
        """Of a checkpoint whose quantization is to be trained; writes files into `folder`."""
        from segslim.quantization.qat import fake_quantize, fuse_conv_bn

        spec = checkpoint.quantization
        assert spec is not None  # it is what is trained here
        plain, network = checkpoint.network(), checkpoint.network()
        graph = float_graph(plain, config, folder)
        if spec.fake_quantize["fuse_conv_bn"]:
            fuse_conv_bn(network, graph)
        network = fake_quantize(network, spec, graph)
        return QuantizedNetwork(network, plain, spec, graph, weights_of(network), config, folder)

    def learned(self) -> QuantizationSpec:
        """The spec that follows from what the layers have learned until now; the one it began with where that is
        nothing, so that training never ends below it.
        """
        from segslim.quantization.qat import learned

        now = weights_of(self.network)
        if all(np.array_equal(now[name], array) for name, array in self.start.items()):
            return self.spec
        return learned(self.network, self.spec, self.graph)

    def float_network(self) -> Any:
        """The network without the layers, with the weights of now."""
        from segslim.quantization.qat import plain_name

        now = {plain_name(name): array for name, array in weights_of(self.network).items()}
        for name, tensor in self.plain.state_dict().items():
            tensor.set_value(now[name])
        return self.plain

    def miou(self, network: Any, pairs: Sequence[Pair]) -> float:
        """Of the int8 file that would be deployed now, not of the simulation."""
        import onnx

        from segslim.quantization.qdq import quantize

        model = float_graph(self.float_network(), self.config, self.folder)
        quantize(model, self.learned())
        file = self.folder / "validation.onnx"
        onnx.save(model, file)
        session = open_session("onnxruntime", file, threads=threads(self.config))
        return score(session, self.config, batches(self.config, pairs)).miou


if __name__ == "__main__":
    run_worker(work)
