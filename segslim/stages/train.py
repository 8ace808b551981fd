"""train: dataset -> checkpoint; retrain and distil: dataset, checkpoint, the first checkpoint -> checkpoint.

One loop, from new or given weights, by one process or several.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from segslim.config import Config, Retrain
from segslim.data.source import Dataset
from segslim.errors import UserError
from segslim.files import sha256_of
from segslim.networks.checkpoint import CHANNELS, MODEL, WEIGHTS, Checkpoint
from segslim.networks.network import build_network, is_exported, require_code
from segslim.pipeline.fingerprint import installed_version
from segslim.pipeline.stage import Workspace, stage
from segslim.stages.shared import PADDLE
from segslim.stages.shared.exported import check_exported, exported_files, opened
from segslim.stages.shared.fitting import train_network, training_record
from segslim.stages.shared.images import LABEL_FILLS, require_labels, usable_pairs
from segslim.stages.shared.training_process import QuantizedNetwork, Share, by_processes, check_later_stages
from segslim.training.process_group import ALONE, ProcessGroup

READS = (
    *("seed", "device", "model", "dataset.size", "dataset.train_transforms"),
    *("dataset.val_transforms", "dataset.num_classes", "dataset.ignore_index"),
)
OF_COLOURS = ("RandomDistort",)  # PaddleSeg's transforms that take images of 3 channels alone
IGNORES = ("dataset.source", "dataset.on_error", "dataset.labelled", "num_workers", "engine.threads", "store")
RETRAIN_READS = (*READS, "retrain", "dataset.recipe.learning_rate")
RETRAIN_IGNORES = (*IGNORES, "export", "retrain.save_interval", "retrain.processes", "retrain.distill.teacher")


@stage(
    does="training",
    gives=Checkpoint,
    reads=[*READS, "train"],
    ignores=[*IGNORES, "train.save_interval", "train.checkpoint", "train.processes"],
    packages=PADDLE,
    version=2,
)
def train(dataset: Dataset, config: Config, workspace: Workspace) -> Checkpoint:
    """Gives the dense network, trained here or with the weights of train.checkpoint, or trained here from these; of an
    exported graph, that with the weights that are in it.
    """
    if is_exported(config.model.network):
        network = opened(config)
        check_later_stages(network, len(usable_pairs(config, dataset, "train")), config, workspace)
        workspace.summarize(f"the network in {config.model.file}")
        return Checkpoint.of_network(network, config.model.network)
    if config.train.checkpoint is None or config.train.ignore_mismatched_heads:
        return by_processes("train", train_share, config.train, config, workspace)
    checkpoint = Checkpoint.of_file(config.train.checkpoint, config.model.network, seed=config.seed)
    check_later_stages(checkpoint.network(), len(usable_pairs(config, dataset, "train")), config, workspace)
    smaller = "" if checkpoint.channels is None else ", pruned before: it is its own baseline"
    workspace.summarize(f"weights of {config.train.checkpoint}{smaller}")
    return checkpoint


@stage(does="retraining", gives=Checkpoint, reads=RETRAIN_READS, ignores=RETRAIN_IGNORES, packages=PADDLE, version=2)
def retrain(
    dataset: Dataset, checkpoint: Checkpoint, baseline_checkpoint: Checkpoint, config: Config, workspace: Workspace
) -> Checkpoint:
    """Gives the network trained on, by the labels and, with retrain.distill, a teacher: the first network, or another.

    One whose quantization asks for it is trained with fake-quantize layers, and gets the ranges they have learned: by
    one process, since each layer averages over what its own process sees.
    """
    return _by_processes("retrain", retrain_share, checkpoint, config, workspace)


@stage(does="teaching", gives=Checkpoint, reads=RETRAIN_READS, ignores=RETRAIN_IGNORES, packages=PADDLE)
def distil(
    dataset: Dataset, checkpoint: Checkpoint, baseline_checkpoint: Checkpoint, config: Config, workspace: Workspace
) -> Checkpoint:
    """Gives the network trained on as `retrain` does, but by its teacher alone: no label is learned from."""
    return _by_processes("distil", distil_share, checkpoint, config, workspace)


def _by_processes(name: str, share: Share, checkpoint: Checkpoint, config: Config, workspace: Workspace) -> Checkpoint:
    if checkpoint.quantization is not None and checkpoint.quantization.fake_quantize:
        return share(config, workspace, ALONE)  # type: ignore[return-value]
    return by_processes(name, share, config.retrain, config, workspace)


def train_share(config: Config, workspace: Workspace, group: ProcessGroup) -> Checkpoint | None:
    """What each process of a group does for `train`; the leading one gives the checkpoint."""
    from segslim.networks.network import load_fitting
    from segslim.networks.pretrained import local_weights

    dataset = Dataset.load(workspace.inputs["dataset"])
    network = build_network(local_weights(config.model.network, config.store), seed=config.seed)
    if group.leads:
        check_later_stages(network, len(usable_pairs(config, dataset, "train")), config, workspace)
    given = config.train.checkpoint
    fitting = None if given is None else load_fitting(network, given)
    result = train_network(network, dataset, config, config.train, workspace, group)
    if fitting is not None and group.leads:
        workspace.summarize(f"{workspace.result[0]}, from {fitting[0]} of {fitting[1]} weights of {given}")
    return (
        Checkpoint.of_network(network, config.model.network, training=training_record(result)) if group.leads else None
    )


def retrain_share(config: Config, workspace: Workspace, group: ProcessGroup) -> Checkpoint | None:
    """What each process of a group does for `retrain`; the leading one gives the checkpoint."""
    return _retrained(config, workspace, group, labels=True)


def distil_share(config: Config, workspace: Workspace, group: ProcessGroup) -> Checkpoint | None:
    """What each process of a group does for `distil`; the leading one gives the checkpoint."""
    return _retrained(config, workspace, group, labels=False)


def _retrained(config: Config, workspace: Workspace, group: ProcessGroup, labels: bool) -> Checkpoint | None:
    dataset = Dataset.load(workspace.inputs["dataset"])
    checkpoint, baseline = (Checkpoint.load(workspace.inputs[kind]) for kind in ("checkpoint", "baseline_checkpoint"))
    network, spec = checkpoint.network(), checkpoint.quantization
    fake_quantize = spec.fake_quantize if spec is not None else {}
    whole = checkpoint.channels == baseline.channels or "reconstruction" in checkpoint.measured
    options = settled(config, network, labels, trained=whole and not fake_quantize)
    teacher = None
    if options.distill.kind != "none":
        other = options.distill.teacher
        teacher = (baseline if other is None else Checkpoint.load(other)).network()
    if not fake_quantize:
        result = train_network(network, dataset, config, options, workspace, group, teacher, labels=labels)
        return checkpoint.with_weights(network, training=training_record(result)) if group.leads else None
    folder = workspace.scratch / f"graph-{group.rank}"
    folder.mkdir(parents=True, exist_ok=True)
    training = QuantizedNetwork.from_checkpoint(checkpoint, config, folder)
    options = dataclasses.replace(options, learning_rate=options.learning_rate * fake_quantize["learning_rate_factor"])
    result = train_network(training.network, dataset, config, options, workspace, group, teacher, training.miou, labels)
    trained = checkpoint.with_weights(training.float_network(), training=training_record(result))
    return trained.quantized(training.learned()) if group.leads else None


def settled(config: Config, network: Any, labels: bool, trained: bool) -> Retrain:
    """config.retrain without `auto`: small steps for a network that is `trained` already (see relative_rate), taught by
    the dense one; SGD's steps of dataset.recipe where it is not, since what a pruning left was not solved for or int8
    is to be trained, and where a learning rate is given.
    """
    from segslim.training.optimizer import relative_rate

    options, sgd_rate = config.retrain, config.dataset.recipe.learning_rate
    small_steps = trained and options.learning_rate == "auto"
    optimizer = options.optimizer if options.optimizer != "auto" else "adam" if small_steps else "sgd"
    adam = optimizer == "adam"
    rate, frozen, kind = options.learning_rate, options.freeze_batch_norm, options.distill.kind
    if rate == "auto":
        rate = relative_rate(network) if adam else sgd_rate
    # a batch needs images of one size, and not every validation gives that
    one_size = any(n["_target_"].endswith(".Resize") and not n.get("keep_ratio") for n in config.dataset.val_transforms)
    augmentation = options.augmentation
    if augmentation == "auto":
        augmentation = "flip" if adam and one_size else "dataset"
    if kind == "auto":
        kind = "logits" if adam or not labels or options.distill.teacher else "none"
    return dataclasses.replace(
        options,
        optimizer=optimizer,
        learning_rate=rate,
        freeze_batch_norm=adam if frozen == "auto" else frozen,
        augmentation=augmentation,
        distill=dataclasses.replace(options.distill, kind=kind),
    )


@train.depends
def given_weights(config: Config) -> Any:
    """Digests of the file or checkpoint folder train.checkpoint, and of all pretrained weights that are used: those
    from addresses are there when this returns. Of an exported graph, of its files.
    """
    if is_exported(config.model.network):
        return [sha256_of(each) for each in exported_files(config)]
    given = _content("train.checkpoint", config.train.checkpoint)
    if given is not None and not config.train.ignore_mismatched_heads:
        return given
    from segslim.networks.pretrained import digests

    pretrained = digests(config.model.network, config.store) or None
    return pretrained if given is None else [given, pretrained]


@retrain.depends
@distil.depends
def given_teacher(config: Config) -> str | None:
    """A digest of the checkpoint folder retrain.distill.teacher, or None where the dense network teaches."""
    return _content("retrain.distill.teacher", config.retrain.distill.teacher)


def _content(key: str, given: str | None) -> str | None:
    if given is None:
        return None
    path = Path(given)
    if path.is_dir() and not (path / WEIGHTS).is_file():
        raise UserError(f"{key}={path}: holds no {WEIGHTS}; give a checkpoint folder, or a .pdparams file")
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        try:
            digest.update(file.name.encode() + bytes.fromhex(sha256_of(file)))
        except OSError as error:
            raise UserError(f"{key}={path}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()


@train.check
def check_weights(config: Config) -> None:
    """Raises UserError when there is nothing to train on, and no network that is trained already."""
    if config.train.checkpoint is None and not is_exported(config.model.network):
        require_labels(config, "a network cannot be trained on it; give the weights of one by train.checkpoint=FILE")


train.check(check_exported)


@retrain.check
@distil.check
def check_trainable(config: Config) -> None:
    """Raises UserError where the network is an exported graph."""
    require_code(
        config.model.network,
        f"compress={config.compress.name} trains the network, and of an exported graph the code is not there; give"
        " compress=prune_post, ptq, prune_post_ptq or front",
    )


@retrain.check
def check_labels(config: Config) -> None:
    """Raises UserError where there are no labels to retrain on."""
    require_labels(config, "retrain learns from them; give compress=prune_distil, or prune_post, which need none")


@retrain.check
@distil.check
def check_teacher(config: Config) -> None:
    """Raises UserError where the teacher is no checkpoint folder, or has other classes."""
    path, classes = config.retrain.distill.teacher, config.dataset.num_classes
    if path is None:
        return
    if config.retrain.distill.kind == "none":
        raise UserError("retrain.distill.kind=none: the teacher would teach nothing; give logits, or no teacher")
    from segslim.networks.network import check_makes_layers

    model = Checkpoint.load(path).model
    check_makes_layers(model, f"retrain.distill.teacher={path}: {MODEL}")
    found = model.get("num_classes", classes)
    if found != classes:
        raise UserError(f"retrain.distill.teacher={path}: has {found} classes, and dataset.num_classes is {classes}")


@distil.check
def check_distillation(config: Config) -> None:
    """Raises UserError where nothing would be learned from."""
    if config.retrain.distill.kind == "none":
        raise UserError("retrain.distill.kind=none: distil learns from its teacher alone; give logits or channel_wise")


@train.check
@retrain.check
@distil.check
def check_training(config: Config) -> None:
    """Raises UserError when a training is asked for what its device cannot do; that of retrain, too, before any."""
    for_cpu, for_gpu = map(installed_version, ("paddlepaddle", "paddlepaddle-gpu"))
    if config.device == "gpu" and for_cpu is not None and for_gpu is None:
        raise UserError("device=gpu: this Paddle is made for the CPU; give device=cpu, or install the group gpu")
    for name in ("optimizer", "learning_rate", "freeze_batch_norm"):
        if getattr(config.train, name) == "auto":
            raise UserError(f"train.{name}=auto: is for retraining; name a value, as conf/config.yaml does")
    for key, options in (("train", config.train), ("retrain", config.retrain)):
        if options.amp and config.device == "cpu":
            raise UserError(f"{key}.amp=true: mixed precision needs device=gpu; give {key}.amp=false")
        shared = key in (*config.compress.stages, "train") and options.processes != "auto"
        if shared and options.batch_size % int(options.processes):
            raise UserError(
                f"{key}.processes={options.processes}: should divide {key}.batch_size={options.batch_size}, since each"
                " takes as many images"
            )


@train.check
def check_heads(config: Config) -> None:
    """Raises UserError where train.ignore_mismatched_heads has nothing to train on from."""
    given = config.train.checkpoint
    if config.train.ignore_mismatched_heads and given is None:
        raise UserError(
            "train.ignore_mismatched_heads=true: give the weights to train on from by train.checkpoint=FILE"
        )
    if config.train.ignore_mismatched_heads and (Path(str(given)) / CHANNELS).exists():
        raise UserError(f"train.ignore_mismatched_heads=true: {given} is pruned; give the weights of the dense network")


@train.check
def check_ignored(config: Config) -> None:
    """Raises UserError where a transform pads labels with, or a loss ignores, another number than the data set's."""
    ignored, classes = config.dataset.ignore_index, config.dataset.num_classes
    for where, nodes in (
        ("dataset.train_transforms", config.dataset.train_transforms),
        ("model.loss", config.model.loss),
    ):
        for key, value in _leaves(where, nodes):
            name = key.rpartition(".")[2]
            if (
                name in LABEL_FILLS
                and value != ignored
                and not (name == "label_padding_value" and 0 <= value < classes)
            ):
                raise UserError(f"{key}={value}: should be dataset.ignore_index={ignored}; change one of them")


@train.check
def check_colours(config: Config) -> None:
    """Raises UserError where a transform of colours is given images without."""
    channels = config.dataset.channels
    for at, node in enumerate(config.dataset.train_transforms):
        if channels != 3 and node.get("_target_", "").rpartition(".")[2] in OF_COLOURS:
            raise UserError(
                f"dataset.channels={channels}: dataset.train_transforms[{at}], {node['_target_']}, is for colours;"
                " leave it out, as dataset/augmentation=geometric does"
            )


def _leaves(key: str, node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield from _leaves(f"{key}.{name}", child)
    elif isinstance(node, list):
        for at, child in enumerate(node):
            yield from _leaves(f"{key}[{at}]", child)
    else:
        yield key, node


@retrain.check
@distil.check
def check_order(config: Config, earlier: tuple[str, ...]) -> None:
    """Raises UserError where weights would move away from the ranges that were measured for them."""
    if "quantize" in earlier and config.compress.qat is None:
        raise UserError(
            "compress.stages: retrain would invalidate the ranges that quantize has measured: put quantize after it, or"
            " train with fake-quantize layers by compress=quant"
        )
