"""Trains a network as the stages train, retrain and distil do: on the data set, judged by its exported file."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from segslim.config import Config, Retrain, Training
from segslim.data import Pair
from segslim.data.source import SPLITS, Dataset
from segslim.errors import deferred
from segslim.pipeline.stage import Workspace
from segslim.plugins import instantiate
from segslim.stages.shared.images import transforms, usable_pairs
from segslim.stages.shared.sessions import quality, score_network
from segslim.training.files import CURVE_FILE, CurveWriter
from segslim.training.loop import FitOptions, FitResult, Progress
from segslim.training.process_group import ProcessGroup


def train_network(
    network: Any,
    dataset: Dataset,
    config: Config,
    options: Training,
    workspace: Workspace,
    group: ProcessGroup,
    teacher: Any = None,
    judge: Callable[[Any, Sequence[Pair]], float] | None = None,
    labels: bool = True,
) -> FitResult:
    """Trains `network` in place, and leaves the curve in the artifact and its result in the workspace.

    Args:
        network: gives one N,C,H,W tensor of logits per head in training mode.
        dataset: its usable pairs are trained and judged on.
        config: all but how it is trained.
        options: how it is trained, without `auto`.
        workspace: whose scratch folder a killed training goes on from.
        group: the processes that train together.
        teacher: the network to learn from beside the labels, or alone.
        judge: gives the mIoU of a network on pairs; by default that of its exported file.
        labels: whether they are learned from.

    Raises UserError where the network cannot be exported or evaluated, or the numbers diverge.
    """
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
            weights_read_as_data()(build_losses)(config.model.loss, ignore_index=config.dataset.ignore_index),
            _fit_options(config, options, labels, distills=teacher is not None),
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
        named = options.optimizer
        kind = named if isinstance(named, str) else str(named.get("_target_")).rpartition(".")[2]
        rate = f"{kind} {options.learning_rate:.2g}"
        frozen = ", batch norm frozen" if options.freeze_batch_norm else ""
        brought_nothing = " (training brought nothing)" if result.best_iter == 0 else ""
        judgement = f"{quality(config)} {result.best_miou:.4f} at iteration {result.best_iter}{brought_nothing}"
        workspace.summarize(f"{judgement}, {rate}{frozen}")
    return result


def _batches_from(
    pairs: Sequence[Pair], config: Config, options: Training, group: ProcessGroup
) -> Callable[[int], Any]:
    """From an iteration to the batches from there on: this process's share of each."""
    from segslim.data.loading import training_loader

    if isinstance(options, Retrain) and options.augmentation == "flip":
        flip = instantiate({"_target_": "paddleseg.transforms.RandomHorizontalFlip"}, "retrain.augmentation")
        augmentation = [flip, *transforms(config, "val")]
    else:
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


def _fit_options(config: Config, options: Training, labels: bool, distills: bool) -> FitOptions:
    from segslim.training.losses import Distillation

    keys = FitOptions.__dataclass_fields__.keys() & Training.__dataclass_fields__.keys()
    given = {key: getattr(options, key) for key in keys}
    distillation = None
    if distills:
        assert isinstance(options, Retrain)  # train has no teacher
        distill = options.distill
        distillation = Distillation(distill.kind, distill.weight, distill.temperature)
    key = "retrain" if isinstance(options, Retrain) else "train"
    typed = (config.retrain if key == "retrain" else config.train).learning_rate
    used = f", of which {options.learning_rate:g} is used" if typed != options.learning_rate else ""
    words = typed if isinstance(typed, str) else f"{typed:g}"
    given |= {"rate_key": f"{key}.learning_rate", "rate_given": f"{words}{used}"}
    return FitOptions(seed=config.seed, device=config.device, labels=labels, distillation=distillation, **given)


def _numbers(at: Progress) -> Mapping[str, float]:
    numbers = {"loss": at.loss, "learning_rate": at.learning_rate, "images_per_second": at.images_per_second}
    return numbers if at.miou is None else {**numbers, "miou": at.miou}


def training_record(result: FitResult) -> dict[str, Any]:
    return {"miou": result.best_miou, "iteration": result.best_iter, "history": result.history}
