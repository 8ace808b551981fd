"""What is bound to fail, known from the config and the machine alone, before any work starts. No Paddle."""

from collections.abc import Sequence

from segslim.channels.criteria import criterion_of
from segslim.config import Config
from segslim.deployment.engines import ENGINES, available, computes_in, runs_int8
from segslim.errors import UserError
from segslim.outside import import_path, is_path
from segslim.quantization.observers import OBSERVERS


def check_classes(config: Config) -> None:
    """Raises UserError when there is not one name, or not one colour, for each class."""
    dataset = config.dataset
    for key in ("classes", "colours"):
        given = getattr(dataset, key)
        if given is not None and len(given) != dataset.num_classes:
            raise UserError(
                f"dataset.{key} has {len(given)} entries for dataset.num_classes={dataset.num_classes}: give one for "
                f"each class, or dataset.{key}=null"
            )


def check_training(config: Config) -> None:
    """Raises UserError when a training is asked for what its device cannot do; that of retrain, too, before any."""
    for key, options in (("train", config.train), ("retrain", config.retrain)):
        if options.amp and config.device == "cpu":
            raise UserError(f"{key}.amp=true: mixed precision needs device=gpu; give {key}.amp=false")
        shared = key in config.compress.stages and options.processes != "auto"
        if shared and options.batch_size % int(options.processes):
            raise UserError(
                f"{key}.processes={options.processes}: should divide {key}.batch_size={options.batch_size}, since each"
                " takes as many images"
            )


def check_pruning(config: Config) -> None:
    """Raises UserError when a key that pruning needs is missing or has no meaning."""
    compress = config.compress
    needed = ["ratio", "criterion", "allocation"]
    if compress.criterion is not None and criterion_of(compress.criterion).by_gradient:
        needed.append("taylor")
    if compress.allocation == "equal_loss":
        needed.append("analysis")
    for key in needed:
        if getattr(compress, key) is None:
            raise UserError(f"compress.{key} has no value: strategy '{compress.name}' prunes, give compress.{key}=...")
    for kind, path in compress.rules.items():
        import_path(path, f"compress.rules.{kind}")
    if compress.allocation == "equal_loss" and "analyze" not in compress.stages:
        raise UserError(
            "compress.allocation=equal_loss: needs the stage analyze in compress.stages, or give"
            " compress.allocation=global or uniform"
        )


def check_quantization(config: Config) -> None:
    """Raises UserError when a key that quantization needs is missing or has no meaning."""
    compress = config.compress
    if compress.calibration is None:
        raise UserError(
            f"compress.calibration has no value: strategy '{compress.name}' quantizes; conf/compress/ptq.yaml has it"
        )
    if compress.calibration.observer not in OBSERVERS:
        raise UserError(
            f"compress.calibration.observer={compress.calibration.observer}: should be one of {', '.join(OBSERVERS)}"
        )
    installed = available(config.engine.candidates)
    if not any(map(runs_int8, installed)):
        raise UserError(
            f"engine: none of {', '.join(installed)} computes in int8 on this machine, which strategy '{compress.name}'"
            " is for; give engine=auto, or compress=none"
        )
    if compress.precisions is not None:
        _check_one_can(config, compress.precisions)


def check_parity(config: Config) -> None:
    """Raises UserError when nothing is quantized that could be compared."""
    if "quantize" not in config.compress.stages:
        raise UserError("compress.stages: parity compares an int8 file; put quantize before it, or leave it out")


def check_precisions(config: Config) -> None:
    """Raises UserError when a strategy that only changes the precision names none."""
    if config.compress.precisions is None:
        raise UserError("compress.precisions has no value: give compress.precisions=[bfloat16]")
    _check_one_can(config, config.compress.precisions)


def _check_one_can(config: Config, precisions: Sequence[str]) -> None:
    """Raises UserError when no engine that the config admits computes in any of `precisions` on this machine."""
    can = {name: computes_in(name) for name in available(config.engine.candidates)}
    if not any(set(precisions) & set(known) for known in can.values()):
        having = "; ".join(f"{name} {', '.join(known)}" for name, known in can.items())
        raise UserError(f"compress.precisions={list(precisions)}: no engine has it on this machine; there is {having}")


def check_export(config: Config) -> None:
    """Raises UserError when the deployed network would not take the images that it is evaluated on."""
    if config.export.fixed_size not in (None, config.dataset.size):
        width, height = config.dataset.size
        raise UserError(
            f"export.size={list(config.export.fixed_size)}: should be dynamic or dataset.size=[{width},{height}],"
            " the size that it is evaluated at"
        )


def check_engines(config: Config) -> None:
    """Raises UserError when no engine that the config admits is installed."""
    for name in config.engine.candidates:
        if is_path(name):
            import_path(name, "engine.candidates")
        elif name not in ENGINES:
            raise UserError(
                f"engine.candidates={name}: should be one of {', '.join(ENGINES)}, or package.module:open_session"
            )
    installed = available(config.engine.candidates)
    if not installed:
        raise UserError(f"engine: none of {_candidates(config)} is installed; installed are {', '.join(available())}")
    precision = config.engine.precision
    if not any(precision in computes_in(name) for name in installed):
        raise UserError(f"engine.precision={precision}: none of {_candidates(config)} computes in it on this machine")


def _candidates(config: Config) -> str:
    return ", ".join(config.engine.candidates)
