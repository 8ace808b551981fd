"""compress.keep_float=auto: the cheapest layers left float that win back all but compress.miou_loss of the mIoU."""

from collections.abc import Callable, Mapping, Sequence

JUDGED = 8  # layers of the least signal-to-noise ratio that are tried alone: the others hardly add noise
Miou = Callable[[Sequence[str] | None], float]


def choose(
    ratios: Mapping[str, float],
    costs: Mapping[str, float],
    miou: Miou,
    loss: float,
    tell: Callable[[int, int], None],
) -> tuple[tuple[str, ...], dict[str, float]]:
    """The weights to keep float, and the mIoU with each of the JUDGED worst of `ratios` alone kept.

    Those that win most alone for what they cost are kept first, until not more than `loss` is lost; then whichever is
    not needed after all is given up again, the dearest first. All JUDGED are kept where they do not win enough.
    costs: what each layer takes in float, in any unit. Its FLOPs: int8 spares a part of the time of each alike.
    """
    wanted = miou(None) - loss
    before = miou(())
    if before >= wanted:
        return (), {}
    worst = list(ratios)[:JUDGED]
    alone = {}
    for done, weight in enumerate(worst):
        alone[weight] = miou((weight,))
        tell(done + 1, len(worst))
    order = sorted(worst, key=lambda weight: -(alone[weight] - before) / max(costs.get(weight, 0.0), 1.0))
    for count in range(1, len(order) + 1):
        if miou(order[:count]) >= wanted:
            return _needed(order[:count], costs, lambda kept: miou(kept) >= wanted), alone
    return tuple(order), alone


def _needed(kept: list[str], costs: Mapping[str, float], enough: Callable[[Sequence[str]], bool]) -> tuple[str, ...]:
    for weight in sorted(kept, key=lambda weight: -costs.get(weight, 0.0)):
        fewer = [other for other in kept if other != weight]
        if fewer and enough(fewer):
            kept = fewer
    return tuple(kept)
