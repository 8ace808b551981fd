"""compress.keep_float=auto: the fewest layers left float that win back all but compress.miou_loss of the mIoU."""

from collections.abc import Callable, Mapping, Sequence

JUDGED = 8  # layers of the least signal-to-noise ratio that are tried alone: the others hardly add noise
Miou = Callable[[Sequence[str] | None], float]


def choose(
    ratios: Mapping[str, float], miou: Miou, loss: float, tell: Callable[[int, int], None]
) -> tuple[tuple[str, ...], dict[str, float]]:
    """The weights to keep float, and the mIoU with each of the JUDGED worst of `ratios` alone kept.

    Those that win most alone are kept first, until not more than `loss` is lost; all JUDGED where that is not reached.
    """
    wanted = miou(None) - loss
    if miou(()) >= wanted:
        return (), {}
    worst = list(ratios)[:JUDGED]
    alone = {}
    for done, weight in enumerate(worst):
        alone[weight] = miou((weight,))
        tell(done + 1, len(worst))
    order = sorted(worst, key=lambda weight: -alone[weight])
    for count in range(1, len(order) + 1):
        if miou(order[:count]) >= wanted:
            return tuple(order[:count]), alone
    return tuple(order), alone
