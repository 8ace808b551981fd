"""Which file of a Deployment an engine reads, and what an engine was asked for."""

from pathlib import Path

from segslim.errors import UserError

PADDLE_INT8 = "paddle_int8"  # the folder of a deployment where Paddle 2.6 wrote the int8 model in its own format


def onnx_file(deployment: Path) -> Path:
    """`deployment` itself if it is an .onnx file, else its model.onnx."""
    file = deployment if deployment.suffix == ".onnx" else deployment / "model.onnx"
    if not file.is_file():
        raise UserError(f"{file} does not exist; give a deployment's folder or an .onnx file")
    return file


def paddle_files(deployment: Path) -> tuple[Path, Path]:
    """The model file (model.json of Paddle 3, or model.pdmodel of Paddle 2) and model.pdiparams."""
    models = [deployment / "model.json", deployment / "model.pdmodel"]
    params = deployment / "model.pdiparams"
    model = next((file for file in models if file.is_file()), None)
    if model is None or not params.is_file():
        raise UserError(f"{deployment} holds no model.json or model.pdmodel with a model.pdiparams; export it again")
    return model, params


def require(engine: str, what: str, value: str, choices: list[str]) -> None:
    """Raises UserError unless `engine` can do `value` here."""
    if value not in choices:
        raise UserError(
            f"engine {engine} cannot do {what} {value!r} on this machine; choose one of {', '.join(choices)}"
        )
