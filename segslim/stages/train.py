"""train: dataset -> checkpoint; retrain: dataset, checkpoint, baseline checkpoint -> checkpoint.

One loop, from new or given weights.
"""

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segslim.config import Config, Training
from segslim.data import Pair
from segslim.data.loading import training_loader
from segslim.data.source import SPLITS
from segslim.interruption import deferred
from segslim.networks.build import build_network
from segslim.networks.checkpoint import LoadedCheckpoint, give_weights, load_checkpoint, save_checkpoint
from segslim.pipeline.stage import Workspace
from segslim.quantization.spec import QuantizationSpec
from segslim.stages.shared.before_training import check_strategy
from segslim.stages.shared.pairs import usable_pairs
from segslim.stages.shared.quantized_training import Quantizing
from segslim.stages.shared.training_together import by_processes
from segslim.stages.shared.transforms import transforms
from segslim.stages.shared.validation import score_network
from segslim.training.curve import CURVE_FILE, CurveWriter
from segslim.training.distillation import Distillation
from segslim.training.loop import FitOptions, FitResult, Progress, fit
from segslim.training.losses import build_losses
from segslim.training.parallel.group import ALONE, Group


def train(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes the checkpoint of the dense network, trained here or read from train.checkpoint."""
    if config.train.checkpoint is None:
        return by_processes("train", train_share, config.train, inputs, config, workspace)
    network = build_network(config.model.network, seed=config.seed)
    channels = give_weights(network, config.train.checkpoint)
    check_strategy(network, config, inputs["dataset"], workspace.scratch)
    save_checkpoint(workspace.artifact, network, config.model.network, channels)
    return f"weights of {config.train.checkpoint}"


def retrain(inputs: Mapping[str, Path], config: Config, workspace: Workspace) -> str:
    """Writes the checkpoint of the given network, trained on; with retrain.distill the baseline is its teacher.

    One whose quantization.yaml asks for it is trained with fake-quantize layers, and gets the ranges they have learned:
    by one process, since each layer averages over what its own process sees.
    """
    table = QuantizationSpec.load(inputs["checkpoint"])
    if table is not None and table.fake_quantize:
        return retrain_share(inputs, config, workspace, ALONE)
    return by_processes("retrain", retrain_share, config.retrain, inputs, config, workspace)


def train_share(inputs: Mapping[str, Path], config: Config, workspace: Workspace, group: Group) -> str:
    """What each process of a group does for `train`."""
    network = build_network(config.model.network, seed=config.seed)
    if group.leads:
        check_strategy(network, config, inputs["dataset"], workspace.scratch)
    result = _fit(network, inputs["dataset"], config, config.train, workspace, group)
    if group.leads:
        save_checkpoint(workspace.artifact, network, config.model.network, metrics=_metrics(result))
    return _in_words(result)


def retrain_share(inputs: Mapping[str, Path], config: Config, workspace: Workspace, group: Group) -> str:
    """What each process of a group does for `retrain`."""
    given = load_checkpoint(inputs["checkpoint"])
    distills = config.retrain.distill.kind != "none"
    teacher = load_checkpoint(inputs["baseline checkpoint"]).network if distills else None
    table = QuantizationSpec.load(inputs["checkpoint"])
    if table is not None and table.fake_quantize:
        return _retrain_quantized(inputs, config, workspace, group, given, table, teacher)
    result = _fit(given.network, inputs["dataset"], config, config.retrain, workspace, group, teacher)
    if group.leads:
        save_checkpoint(workspace.artifact, given.network, given.model, given.channels, metrics=_metrics(result))
    return _in_words(result)


def _retrain_quantized(
    inputs: Mapping[str, Path],
    config: Config,
    workspace: Workspace,
    group: Group,
    given: LoadedCheckpoint,
    table: QuantizationSpec,
    teacher: Any,
) -> str:
    own = workspace.scratch / f"graph-{group.rank}"
    own.mkdir(parents=True, exist_ok=True)
    training = Quantizing.of(inputs["checkpoint"], table, config, own)
    rate = config.retrain.learning_rate * table.fake_quantize["learning_rate_factor"]
    options = dataclasses.replace(config.retrain, learning_rate=rate)
    result = _fit(training.network, inputs["dataset"], config, options, workspace, group, teacher, training.miou)
    if group.leads:
        network = training.float_network()
        save_checkpoint(workspace.artifact, network, given.model, given.channels, metrics=_metrics(result))
        training.learned().save(workspace.artifact)
    return _in_words(result)


def _fit(
    network: Any,
    dataset: Path,
    config: Config,
    options: Training,
    workspace: Workspace,
    group: Group,
    teacher: Any = None,
    judge: Callable[[Any, Sequence[Pair]], float] | None = None,
) -> FitResult:
    training, validation = (usable_pairs(config, dataset, split) for split in SPLITS)

    def judged(trained: Any, pairs: Sequence[Pair]) -> float:
        return judge(trained, pairs) if judge else score_network(trained, config, pairs, workspace.scratch).miou

    def tell(at: Progress) -> None:
        workspace.progress(
            f"loss {at.loss:.3f}  lr {at.learning_rate:.4f}  {at.images_per_second:.0f} images/s",
            at.iteration,
            at.iters,
        )
        curve.add(at.iteration, _numbers(at))

    if group.leads:
        network.eval()
        judged(network, validation[:1])  # what cannot be exported or evaluated fails before the training, not after it
    curve = CurveWriter(workspace.scratch / CURVE_FILE, workspace.measured)
    with deferred() as stop:
        result = fit(
            network,
            _batches_from(training, config, options, group),
            build_losses(config.model.loss),
            _fit_options(config, options, distills=teacher is not None),
            workspace.scratch,
            lambda trained: judged(trained, validation),
            tell if group.leads else lambda at: None,
            teacher,
            stop if group.leads else lambda: 0,
            group,
        )
    curve.close()
    if group.leads:
        shutil.copyfile(workspace.scratch / CURVE_FILE, workspace.artifact / CURVE_FILE)
    return result


def _batches_from(pairs: Sequence[Pair], config: Config, options: Training, group: Group) -> Callable[[int], Any]:
    """From an iteration to the batches from there on: this process's share of each."""
    augmentation = transforms(config, "train")
    return lambda iteration: training_loader(
        pairs,
        augmentation,
        batch_size=options.batch_size,
        seed=config.seed,
        start_iter=iteration,
        iters=options.iters,
        num_workers=-(-config.num_workers // group.size),
        share=(group.rank, group.size),
    )


def _fit_options(config: Config, options: Training, distills: bool) -> FitOptions:
    keys = FitOptions.__dataclass_fields__.keys() & Training.__dataclass_fields__.keys()
    distillation = Distillation(**dataclasses.asdict(config.retrain.distill)) if distills else None
    given = {key: getattr(options, key) for key in keys}
    return FitOptions(seed=config.seed, device=config.device, distillation=distillation, **given)


def _numbers(at: Progress) -> dict[str, float]:
    numbers = {"loss": at.loss, "learning_rate": at.learning_rate, "images_per_second": at.images_per_second}
    return numbers if at.miou is None else {**numbers, "miou": at.miou}


def _metrics(result: FitResult) -> dict[str, Any]:
    return {"miou": result.best_miou, "iteration": result.best_iter, "history": result.history}


def _in_words(result: FitResult) -> str:
    if result.best_miou is None:  # of a process that does not lead: its words are not heard
        return ""
    return f"mIoU {result.best_miou:.4f} at iteration {result.best_iter}"
