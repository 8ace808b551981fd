"""The stages, one row each: what it takes, gives and reads. A strategy is a list of these names (conf/compress/*.yaml).

One file a stage, thin, which calls the rooms; what several do in one way is in `shared`. No stage knows another. A
stage's file is imported only when it has to run, since Paddle takes seconds to import. Before that, checks.py says what
is bound to fail, identities.py what a result depends on beside the config, strategy.py which stages run.
"""

from segslim.config import Config
from segslim.outside import import_path, is_path
from segslim.pipeline.stage import Stage
from segslim.stages import checks, identities

PADDLE = ("paddlepaddle", "paddlepaddle-gpu", "paddleseg")
ENGINES = ("onnxruntime", "openvino", *PADDLE[:2])
IMAGES = ("dataset.val_transforms", "dataset.num_classes", "dataset.ignore_index")
NAMES = ("dataset.classes", "dataset.colours")
TRAINING = ("seed", "device", "model", "dataset.size", "dataset.train_transforms", *IMAGES)
GRAPH = ("dataset.size", "compress.rules")
PRUNE = (*GRAPH, "compress.ratio", "compress.allocation", "compress.align")

STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            name="data",
            takes=(),
            gives="dataset",
            reads=("dataset.source", "dataset.num_classes", "dataset.ignore_index", *NAMES),
            # what is in the files counts, not where they are; and no colour of a picture is worth training again
            ignores=("dataset.source.root", *NAMES),
            identity=identities.data_identity,
            check=checks.check_classes,
            function="segslim.stages.data:run",
        ),
        Stage(
            name="train",
            takes=("dataset",),
            gives="checkpoint",
            reads=(*TRAINING, "train"),
            ignores=("train.save_interval", "train.checkpoint", "train.processes"),
            packages=PADDLE,
            identity=identities.weights_and_code,
            check=checks.check_training,
            function="segslim.stages.train:train",
            version=2,
        ),
        Stage(
            name="score",
            takes=("dataset", "checkpoint"),
            gives="scores",
            reads=(*GRAPH, "compress.criterion", "compress.skip"),
            packages=PADDLE,
            identity=identities.scoring,
            check=checks.check_pruning,
            function="segslim.stages.score:run",
        ),
        Stage(
            name="analyze",
            takes=("dataset", "checkpoint", "scores"),
            gives="sensitivity",
            reads=(*GRAPH, *IMAGES, "compress.analysis"),
            packages=PADDLE,
            check=checks.check_pruning,
            function="segslim.stages.analyze:run",
            version=2,
        ),
        Stage(
            name="prune",
            takes=("checkpoint", "baseline checkpoint", "scores"),
            may_take=("sensitivity",),
            gives="checkpoint",
            reads=PRUNE,
            packages=PADDLE,
            check=checks.check_pruning,
            function="segslim.stages.prune:run",
        ),
        Stage(
            name="quantize",
            takes=("dataset", "checkpoint"),
            gives="checkpoint",
            reads=(
                *("dataset.size", "dataset.val_transforms", "export.size", "export.output"),
                *("compress.calibration", "compress.activations", "compress.precisions"),
                *("compress.keep_float", "compress.miou_loss", "compress.qat"),
                *("dataset.num_classes", "dataset.ignore_index"),
            ),
            packages=(*PADDLE, "paddle2onnx", "onnx"),
            check=checks.check_quantization,
            function="segslim.stages.quantize:run",
        ),
        Stage(
            name="profile",
            takes=("checkpoint", "baseline checkpoint", "baseline deployment", "baseline engine"),
            gives="costs",
            reads=(*GRAPH, "compress.align", "export", "engine"),
            packages=(*PADDLE, *ENGINES[:2]),
            identity=identities.machine,
            function="segslim.stages.profile:run",
        ),
        Stage(
            name="prune_latency",
            takes=("checkpoint", "scores", "costs", "baseline deployment", "baseline engine"),
            may_take=("sensitivity",),
            gives="checkpoint",
            reads=(*PRUNE, "export", "engine", "benchmark"),
            packages=(*PADDLE, *ENGINES[:2]),
            identity=identities.machine,
            check=checks.check_pruning,
            function="segslim.stages.prune:to_latency",
        ),
        Stage(
            name="retrain",
            takes=("dataset", "checkpoint", "baseline checkpoint"),
            gives="checkpoint",
            reads=(*TRAINING, "retrain"),
            ignores=("retrain.save_interval", "retrain.processes"),
            packages=PADDLE,
            check=checks.check_training,
            function="segslim.stages.train:retrain",
            version=2,
        ),
        Stage(
            name="export",
            takes=("checkpoint",),
            gives="deployment",
            reads=("export", "dataset.size", "dataset.num_classes", "dataset.val_transforms", *NAMES),
            packages=(*PADDLE, "paddle2onnx", "onnx"),
            check=checks.check_export,
            function="segslim.stages.export:run",
        ),
        Stage(
            name="lower",
            takes=("deployment",),
            gives="deployment",
            reads=("compress.precisions",),
            check=checks.check_precisions,
            function="segslim.stages.lower:run",
        ),
        Stage(
            name="select",
            takes=("dataset", "deployment"),
            gives="engine",
            reads=("engine", "dataset.val_transforms"),
            packages=ENGINES,
            identity=identities.machine,
            check=checks.check_engines,
            function="segslim.stages.select:run",
            version=4,
        ),
        Stage(
            name="evaluate",
            takes=("dataset", "deployment", "engine"),
            gives="metrics",
            reads=IMAGES,
            function="segslim.stages.evaluate:run",
        ),
        Stage(
            name="parity",
            takes=("dataset", "checkpoint", "deployment", "engine"),
            gives="parity",
            reads=(*IMAGES, "dataset.size", "export.size", "export.output"),
            packages=PADDLE,
            check=checks.check_parity,
            function="segslim.stages.parity:run",
        ),
        Stage(
            name="benchmark",
            takes=("baseline deployment", "baseline engine", "deployment", "engine"),
            gives="latency",
            reads=("benchmark", "engine", "dataset.size"),
            packages=ENGINES,
            identity=identities.machine,
            function="segslim.stages.benchmark:run",
            version=3,
        ),
        Stage(
            name="preview",
            takes=("dataset", "baseline deployment", "baseline engine", "deployment", "engine"),
            gives="pictures",
            reads=(*IMAGES, *NAMES),
            ignores=("dataset.classes",),
            function="segslim.stages.preview:run",
        ),
    )
}


def stages_for(config: Config) -> dict[str, Stage]:
    """STAGES, and those that the strategy names by `package.module:name`."""
    outside = filter(is_path, config.compress.stages)
    return {**STAGES, **{path: import_path(path, "compress.stages") for path in outside}}
