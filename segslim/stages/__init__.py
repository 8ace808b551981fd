"""The stages, one function each, declared in a file of its name. A strategy is a list of these names (conf/compress/).

No stage knows another; what several do in one way is in `shared`. Paddle takes seconds to import, so it is imported in
the body of a stage, never by its file.
"""

from segslim.config import Config
from segslim.errors import UserError
from segslim.pipeline.stage import Stage
from segslim.plugins import import_path, is_path
from segslim.stages.analyze import analyze
from segslim.stages.benchmark import benchmark
from segslim.stages.data import data
from segslim.stages.evaluate import evaluate
from segslim.stages.export import export
from segslim.stages.parity import parity
from segslim.stages.place import place
from segslim.stages.preview import preview
from segslim.stages.prune import prune
from segslim.stages.pseudo_label import pseudo_label
from segslim.stages.quantize import quantize, set_precision
from segslim.stages.reconstruct import reconstruct
from segslim.stages.score import score
from segslim.stages.select import select
from segslim.stages.train import distil, retrain, train

_OURS = (
    *(data, train, pseudo_label, score, analyze, prune, reconstruct),
    *(quantize, set_precision, retrain, distil, place),
    *(export, select, evaluate, parity, benchmark, preview),
)
STAGES: dict[str, Stage] = {stage.name: stage for stage in _OURS}
#: Those by several processes, or hosts.
TRAININGS = (train.name, retrain.name, distil.name)
#: What benchmark.again=true runs again, with all that is made from it.
TIMING = (select.name, benchmark.name)


def stages_for(config: Config) -> dict[str, Stage]:
    """STAGES, and those that the config names by `package.module:name`. Raises UserError for what is none."""
    found = dict(STAGES)
    for path in filter(is_path, (*config.stages.first, *config.compress.stages, *config.stages.last)):
        named = import_path(path, "compress.stages")
        if not isinstance(named, Stage):
            raise UserError(f"compress.stages={path}: is no stage; declare the function by @segslim.stage(...)")
        found[path] = named
    return found
