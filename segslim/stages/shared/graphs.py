"""The ONNX graphs of a network at the config's image size, and the user's operator rules for its channel graph."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from segslim.config import Config
from segslim.plugins import import_path

if TYPE_CHECKING:
    import onnx


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

    export_onnx(network, folder / "float.onnx", input_shape(export_size(config)), output=config.export.output)
    return onnx.load(folder / "float.onnx")


def write_class_ids_graph(network: Any, config: Config, file: Path) -> None:
    """Writes the one that gives class ids at dataset.size, by which a network is judged on its way."""
    from segslim.deployment.export import export_onnx, input_shape

    export_onnx(network, file, input_shape(config.dataset.size), output="argmax")
