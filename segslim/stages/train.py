"""train: dataset -> checkpoint; retrain: dataset, checkpoint, the first checkpoint -> checkpoint.

One loop, from new or given weights, by one process or several.
"""

import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segslim.config import Config, Training
from segslim.data import Pair
from segslim.data.source import SPLITS, Dataset
from segslim.errors import UserError, deferred
from segslim.files import sha256_of
from segslim.networks.checkpoint import Checkpoint
from segslim.pipeline.stage import Workspace, stage
from segslim.stages.shared import PADDLE
from segslim.stages.shared.images import transforms, usable_pairs
from segslim.stages.shared.sessions import score_network
from segslim.stages.shared.training_process import QuantizedNetwork, by_processes, check_later_stages
from segslim.training.files import CURVE_FILE, CurveWriter
from segslim.training.loop import FitOptions, FitResult, Progress
from segslim.training.process_group import ALONE, ProcessGroup

READS = (
    *("seed", "device", "model", "dataset.size", "dataset.train_transforms"),
    *("dataset.val_transforms", "dataset.num_classes", "dataset.ignore_index"),
)
IGNORES = ("dataset.source", "dataset.on_error", "num_workers", "engine.threads", "store")


@stage(
    gives=Checkpoint,
    reads=[*READS, "train"],
    ignores=[*IGNORES, "train.save_interval", "train.checkpoint", "train.processes"],
    packages=PADDLE,
    version=2,
)
def train(dataset: Dataset, config: Config, workspace: Workspace) -> Checkpoint:
    """Gives the dense network, trained here or with the weights of train.checkpoint."""
    if config.train.checkpoint is None:
        return by_processes("train", train_share, config.train, config, workspace)
    checkpoint = Checkpoint.of_file(config.train.checkpoint, config.model.network, seed=config.seed)
    check_later_stages(checkpoint.network(), len(usable_pairs(config, dataset, "train")), config, workspace)
    workspace.summarize(f"weights of {config.train.checkpoint}")
    return checkpoint


@stage(
    gives=Checkpoint,
    reads=[*READS, "retrain"],
    ignores=[*IGNORES, "export", "retrain.save_interval", "retrain.processes"],
    packages=PADDLE,
    version=2,
)
def retrain(
    dataset: Dataset, checkpoint: Checkpoint, baseline_checkpoint: Checkpoint, config: Config, workspace: Workspace
) -> Checkpoint:
    """Gives the network trained on; with retrain.distill the first one is its teacher.

    One whose quantization asks for it is trained with fake-quantize layers, and gets the ranges they have learned: by
    one process, since each layer averages over what its own process sees.
    """
    if checkpoint.quantization is not None and checkpoint.quantization.fake_quantize:
        return retrain_share(config, workspace, ALONE)  # type: ignore[return-value]
    return by_processes("retrain", retrain_share, config.retrain, config, workspace)


def train_share(config: Config, workspace: Workspace, group: ProcessGroup) -> Checkpoint | None:
    """What each process of a group does for `train`; the leading one gives the checkpoint."""
    from segslim.networks.network import build_network
    from segslim.networks.pretrained import local_weights

    dataset = Dataset.load(workspace.inputs["dataset"])
    network = build_network(local_weights(config.model.network, config.store), seed=config.seed)
    if group.leads:
        check_later_stages(network, len(usable_pairs(config, dataset, "train")), config, workspace)
    result = _fit(network, dataset, config, config.train, workspace, group)
    return Checkpoint.of_network(network, config.model.network, training=_metrics(result)) if group.leads else None


def retrain_share(config: Config, workspace: Workspace, group: ProcessGroup) -> Checkpoint | None:
    """What each process of a group does for `retrain`; the leading one gives the checkpoint."""
    dataset = Dataset.load(workspace.inputs["dataset"])
    checkpoint = Checkpoint.load(workspace.inputs["checkpoint"])
    distills = config.retrain.distill.kind != "none"
    teacher = Checkpoint.load(workspace.inputs["baseline_checkpoint"]).network() if distills else None
    spec = checkpoint.quantization
    if spec is None or not spec.fake_quantize:
        network = checkpoint.network()
        result = _fit(network, dataset, config, config.retrain, workspace, group, teacher)
        return checkpoint.with_weights(network, training=_metrics(result)) if group.leads else None
    folder = workspace.scratch / f"graph-{group.rank}"
    folder.mkdir(parents=True, exist_ok=True)
    training = QuantizedNetwork.from_checkpoint(checkpoint, config, folder)
    rate = config.retrain.learning_rate * spec.fake_quantize["learning_rate_factor"]
    options = dataclasses.replace(config.retrain, learning_rate=rate)
    result = _fit(training.network, dataset, config, options, workspace, group, teacher, training.miou)
    trained = checkpoint.with_weights(training.float_network(), training=_metrics(result))
    return trained.quantized(training.learned()) if group.leads else None


@train.depends
def given_weights(config: Config) -> Any:
    """A digest of the file or checkpoint folder train.checkpoint, or those of all pretrained weights, which are there
    when this returns.
    """
    if config.train.checkpoint is None:
        from segslim.networks.pretrained import digests

        return digests(config.model.network, config.store) or None
    path = Path(config.train.checkpoint)
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        try:
            digest.update(file.name.encode() + bytes.fromhex(sha256_of(file)))
        except OSError as error:
            raise UserError(f"train.checkpoint={path}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()


@train.check
@retrain.check
def check_training(config: Config) -> None:
    """Raises UserError when a training is asked for what its device cannot do; that of retrain, too, before any."""
    for key, options in (("train", config.train), ("retrain", config.retrain)):
        if options.amp and config.device == "cpu":
            raise UserError(f"{key}.amp=true: mixed precision needs device=gpu; give {key}.amp=false")
        shared = key in (*config.compress.stages, "train") and options.processes != "auto"
        if shared and options.batch_size % int(options.processes):
            raise UserError(
                f"{key}.processes={options.processes}: should divide {key}.batch_size={options.batch_size}, since each"
                " takes as many images"
            )


@retrain.check
def check_order(config: Config, earlier: tuple[str, ...]) -> None:
    """Raises UserError where weights would move away from the ranges that were measured for them."""
    if "quantize" in earlier and config.compress.qat is None:
        raise UserError(
            "compress.stages: retrain would invalidate the ranges that quantize has measured: put quantize after it, or"
            " train with fake-quantize layers by compress=quant"
        )


def _fit(
    network: Any,
    dataset: Dataset,
    config: Config,
    options: Training,
    workspace: Workspace,
    group: ProcessGroup,
    teacher: Any = None,
    judge: Callable[[Any, Sequence[Pair]], float] | None = None,
) -> FitResult:
    """Trains `network` in place. `judge` gives the mIoU of a network on pairs, by default that of its exported file."""
    from segslim.networks.network import weights_read_as_data
    from segslim.training.loop import fit
    from segslim.training.losses import build_losses

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
            weights_read_as_data()(build_losses)(config.model.loss),
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
        brought_nothing = " (training brought nothing)" if result.best_iter == 0 else ""
        workspace.summarize(f"mIoU {result.best_miou:.4f} at iteration {result.best_iter}{brought_nothing}")
    return result


def _batches_from(
    pairs: Sequence[Pair], config: Config, options: Training, group: ProcessGroup
) -> Callable[[int], Any]:
    """From an iteration to the batches from there on: this process's share of each."""
    from segslim.data.loading import training_loader

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
    from segslim.training.losses import Distillation

    keys = FitOptions.__dataclass_fields__.keys() & Training.__dataclass_fields__.keys()
    distillation = Distillation(**dataclasses.asdict(config.retrain.distill)) if distills else None
    given = {key: getattr(options, key) for key in keys}
    return FitOptions(seed=config.seed, device=config.device, distillation=distillation, **given)


def _numbers(at: Progress) -> Mapping[str, float]:
    numbers = {"loss": at.loss, "learning_rate": at.learning_rate, "images_per_second": at.images_per_second}
    return numbers if at.miou is None else {**numbers, "miou": at.miou}


def _metrics(result: FitResult) -> dict[str, Any]:
    return {"miou": result.best_miou, "iteration": result.best_iter, "history": result.history}
