"""A model.file, which no code makes and nothing trains: opened, and refused where it does not go with the config."""

import tempfile
from pathlib import Path

from segslim.config import Config
from segslim.errors import UserError
from segslim.exported import ExportedNetwork, files_of, read_graph
from segslim.networks.network import build_network, is_exported


def opened(config: Config) -> ExportedNetwork:
    """The network in model.file: an .onnx file, or Paddle's inference model (its folder, .json or .pdmodel), which is
    converted. Raises UserError for what is neither, or cannot be read.
    """
    node, paddle_model = config.model.network, _paddle_model(Path(str(config.model.file)))
    if paddle_model is None:
        return build_network(node)
    from segslim.deployment.conversion import convert

    with tempfile.TemporaryDirectory() as folder:
        convert(*paddle_model, Path(folder, "net.onnx"), f"model.file={config.model.file}")
        options = {key: value for key, value in node.items() if key not in ("_target_", "file")}
        return ExportedNetwork(read_graph(Path(folder, "net.onnx")), **options)


def _paddle_model(file: Path) -> tuple[Path, Path] | None:
    """The model and the parameters of a Paddle inference model; None of another file."""
    models = sorted(file.glob("*.json")) + sorted(file.glob("*.pdmodel")) if file.is_dir() else [file]
    for model in models:
        params = model.with_suffix(".pdiparams")
        if model.suffix in (".json", ".pdmodel") and params.is_file():
            return model, params
    if file.is_dir() or file.suffix in (".json", ".pdmodel"):
        raise UserError(
            f"model.file={file}: holds no Paddle inference model, which is NAME.json or NAME.pdmodel with"
            " NAME.pdiparams; give such a folder, or an .onnx file"
        )
    return None


def exported_files(config: Config) -> list[Path]:
    """All that model.file stands for: an .onnx file and its weights beside it, or Paddle's model and parameters."""
    file = Path(str(config.model.file))
    return list(_paddle_model(file) or files_of(file))


def check_exported(config: Config) -> None:
    """Raises UserError for an exported graph that cannot be read, or of which it is not known what images it takes."""
    model, given = config.model, config.model.input
    if not is_exported(model.network) or given is None:
        return
    if config.train.checkpoint is not None:
        raise UserError("train.checkpoint: model=exported has its weights in model.file; leave it out")
    network, channels = opened(config), config.dataset.channels
    if network.image_channels != channels:
        raise UserError(
            f"dataset.channels={channels}: {model.file} takes images of {network.image_channels};"
            f" give dataset.channels={network.image_channels}"
        )
    if given.mean is None and not network.normalizes:
        raise UserError(
            f"model.input.mean has no value: nothing in {model.file} normalizes its image; give what it was trained"
            " with, as model.input.mean=[0.485,0.456,0.406] model.input.std=[0.229,0.224,0.225] (ImageNet's)"
        )
    for key, numbers in (("mean", given.mean), ("std", given.std)):
        if numbers is not None and len(numbers) != channels:
            raise UserError(f"model.input.{key}={numbers}: should have {channels} numbers, one for each channel")
    changed = [name for name in config.compress.stages if name in ("prune", "quantize")]
    if network.quantized is not None and changed:
        raise UserError(
            f"model.file={model.file}: is quantized already ({network.quantized}), and {changed[0]} needs the float"
            " network; compress=none evaluates and times it as it is"
        )
    network.check_size(config.dataset.size)
