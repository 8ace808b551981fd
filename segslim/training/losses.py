"""The loss of a network with one or several output heads, of PaddleSeg's loss modules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segslim.errors import UserError
from segslim.instantiate import instantiate
from segslim.paddle_compat import arithmetic_of_integers_and_floats, import_paddle, import_paddleseg


@dataclass(frozen=True)
class Losses:
    """One loss and one weight for each head, the main head first."""

    types: tuple[Any, ...]
    coef: tuple[float, ...]


def build_losses(config: Mapping[str, Any], seed: int = 0) -> Losses:
    """Builds the losses of {"types": [{"_target_": "paddleseg.models.CrossEntropyLoss", ...}], "coef": [1.0, 0.4]}.

    As in PaddleSeg's configs, a single type stands for all heads that `coef` weighs. Some losses hold random weights
    (DetailAggregateLoss); they are drawn from `seed`.

    Raises UserError when a type cannot be built, or their number is not that of the coefficients.
    """
    unknown = config.keys() - {"types", "coef"}
    if unknown or not config.get("types") or not config.get("coef"):
        raise UserError(
            f"model.loss has the keys {', '.join(config)}: give it types and coef, one of each for every head"
        )
    import_paddle().seed(seed)
    import_paddleseg()
    coef = tuple(float(weight) for weight in config["coef"])
    types = tuple(instantiate(node, f"model.loss.types[{at}]") for at, node in enumerate(config["types"]))
    if len(types) == 1:
        types *= len(coef)
    if len(types) != len(coef):
        raise UserError(f"model.loss has {len(types)} types and {len(coef)} coef: give as many of one as of the other")
    return Losses(types, coef)


def segmentation_loss(logits: Sequence[Any], label: Any, losses: Losses) -> Any:
    """The weighted sum of the heads' losses, a scalar tensor with a gradient.

    `logits` holds N,C,H,W of each head, `label` N,H,W of int64. A MixedLoss counts as one head's loss.

    Raises UserError when the network has more or fewer heads than there are losses.
    """
    check_heads(logits, losses)
    terms = []
    with arithmetic_of_integers_and_floats():
        for head, loss, weight in zip(logits, losses.types, losses.coef, strict=True):
            value = _value(loss, head, label)
            # a MixedLoss gives a list of its own, weighted, terms; some losses give one number of shape [1], not []
            terms += [weight * part.sum() for part in (value if isinstance(value, list) else [value])]
    return sum(terms[1:], terms[0])


def check_heads(logits: Sequence[Any], losses: Losses) -> None:
    """Raises UserError when the network has more or fewer heads than there are losses."""
    if len(logits) != len(losses.types):
        raise UserError(
            f"model.loss is for {len(losses.types)} heads, and the network has {len(logits)} in training:"
            f" give model.loss.coef {len(logits)} weights"
        )


def _value(loss: Any, head: Any, label: Any) -> Any:
    try:
        return loss(head, label)
    except (AssertionError, IndexError, ValueError) as error:  # how the losses say what does not fit them
        shape = "x".join(map(str, head.shape))
        reason = " ".join(str(error).split())
        raise UserError(f"model.loss: {type(loss).__name__} cannot take logits of {shape}: {reason}") from error
