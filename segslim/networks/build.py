"""Builds the network that a config describes."""

from collections.abc import Mapping
from typing import Any

from segslim.errors import UserError
from segslim.instantiate import instantiate
from segslim.paddle_compat import import_paddle, import_paddleseg


def build_network(model: Mapping[str, Any], seed: int | None = None) -> Any:
    """Builds the paddle.nn.Layer that `model` describes, with weights drawn from `seed`.

    `model` is a `_target_` node: {"_target_": "paddleseg.models.FCN", "num_classes": 2, "backbone": {"_target_": ...}}.
    Names of parameters start anew for each network, so they do not depend on what else was built in this process.

    Raises UserError naming the key, target and argument that do not fit.
    """
    paddle = import_paddle()
    import_paddleseg()
    if "_target_" not in model:
        raise UserError(
            "model.network._target_ has no value: give the class of the network, as in paddleseg.models.FastSCNN"
        )
    if seed is not None:
        paddle.seed(seed)
    with paddle.utils.unique_name.guard():
        network = instantiate(model, "model.network")
    if not isinstance(network, paddle.nn.Layer):
        raise UserError(
            f"model.network._target_={model['_target_']}: makes a {type(network).__name__}, not a paddle.nn.Layer"
        )
    return network
