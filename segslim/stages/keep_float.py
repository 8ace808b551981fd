"""compress.keep_float=auto: the fewest layers left float that win back all but compress.miou_loss of the mIoU."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from segslim.config import Config
from segslim.engines import open_session
from segslim.quantization.qdq import quantize
from segslim.quantization.table import Table
from segslim.stages.sessions import threads
from segslim.stages.validation import Batches, score

JUDGED = 8  # layers of the least signal-to-noise ratio that are tried alone: the others hardly add noise
Miou = Callable[[Sequence[str] | None], float]


def miou_by_layers(model: onnx.ModelProto, table: Table, images: Batches, config: Config, folder: Path) -> Miou:
    """mIoU on labelled `images` with these layers left float, the rest int8; of the float graph for None."""

    def miou(kept: Sequence[str] | None) -> float:
        copy = onnx.ModelProto.FromString(model.SerializeToString())
        if kept is not None:
            quantize(copy, replace(table, keep_float=tuple(kept)))
        onnx.save(copy, folder / "judged.onnx")
        session = open_session("onnxruntime", folder / "judged.onnx", threads=threads(config))
        return score(session, config, images).miou

    return miou


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
