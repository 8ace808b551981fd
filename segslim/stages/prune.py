"""prune: checkpoint, importance, sensitivity where it was measured -> checkpoint of fewer channels."""

from segslim.channels import Importance, Sensitivity
from segslim.config import Config
from segslim.networks.checkpoint import Checkpoint
from segslim.pipeline.stage import Workspace, stage
from segslim.stages.shared import PADDLE
from segslim.stages.shared.pruning import channels_to_keep, check_order, check_pruning, check_ratio, pruned
from segslim.stages.shared.sessions import operator_rules


@stage(
    does="removing channels",
    gives=Checkpoint,
    reads=["dataset.size", "compress.rules", "compress.ratio", "compress.allocation", "compress.align"],
    packages=PADDLE,
)
def prune(
    checkpoint: Checkpoint,
    baseline_checkpoint: Checkpoint,
    importance: Importance,
    config: Config,
    workspace: Workspace,
    sensitivity: Sensitivity | None = None,
) -> Checkpoint:
    """Gives the checkpoint whose FLOPs are less than those of the first checkpoint by compress.ratio."""
    rules = operator_rules(config)
    graph = checkpoint.channel_graph(config.dataset.size, rules)
    dense_flops = graph.flops()
    if checkpoint.channels is not None:
        dense_flops = baseline_checkpoint.channel_graph(config.dataset.size, rules).flops()
    kept = channels_to_keep(graph, importance, sensitivity, config, total=dense_flops)
    workspace.summarize(f"{graph.flops(kept) / dense_flops - 1:+.1%} FLOPs")
    return pruned(checkpoint, graph, kept)


prune.check(check_pruning)
prune.check(check_order)
prune.check_network(check_ratio)
