"""A process's part of the loss of a whole batch."""

from collections.abc import Sequence
from typing import Any

from segslim.training.losses import Losses, check_heads, segmentation_loss
from segslim.training.parallel.group import Group
from segslim.training.parallel.whole_batch import whole_batch


def part_of_loss(logits: Sequence[Any], label: Any, losses: Losses, group: Group) -> Any:
    """What this process adds to the loss of the whole batch, a scalar tensor with a gradient.

    `logits` and `label` are of this process's images. The parts of all processes sum to `segmentation_loss` of the
    whole batch, and so do their gradients. A mean over the pixels is taken of the share, and counts by its pixels; any
    other loss (of the hardest pixels, of overlaps, of boundaries) is taken of the whole batch, in every process.
    """
    check_heads(logits, losses)
    own = [at for at, loss in enumerate(losses.types) if _is_mean_over_pixels(loss)]
    whole = [at for at in range(len(logits)) if at not in own]
    terms = []
    if own:
        indices = {at: losses.types[at].ignore_index for at in own}
        shares = {index: group.share_of(float((label != index).sum())) for index in sorted(set(indices.values()))}
        coef = tuple(losses.coef[at] * shares[index] for at, index in indices.items())
        counted = Losses(tuple(losses.types[at] for at in own), coef)
        terms.append(segmentation_loss([logits[at] for at in own], label, counted))
    if whole:
        parts = Losses(tuple(losses.types[at] for at in whole), tuple(losses.coef[at] / group.size for at in whole))
        heads = [whole_batch(logits[at], group) for at in whole]
        terms.append(segmentation_loss(heads, group.gathered_tensor(label), parts))
    return sum(terms[1:], terms[0])


def _is_mean_over_pixels(loss: Any) -> bool:
    """Whether it is PaddleSeg's cross entropy, of all pixels that are not ignored, and all alike."""
    return (
        type(loss).__name__ == "CrossEntropyLoss"
        and loss.weight is None
        and loss.top_k_percent_pixels == 1.0
        and loss.avg_non_ignore
    )
