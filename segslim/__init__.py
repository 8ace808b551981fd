"""segslim: segmentation networks made small and fast for the devices they must run on.

What code of your own imports stands here, and is loaded when it is first used:

    from segslim import Checkpoint, ChannelGraph, Deployment, UserError, prune, stage
"""

from importlib import import_module
from typing import Any

_PLACES = {
    "ChannelGraph": "segslim.channels",
    "Checkpoint": "segslim.networks.checkpoint",
    "Deployment": "segslim.deployment.deployment",
    "Pair": "segslim.data",
    "UserError": "segslim.errors",
    "Workspace": "segslim.pipeline.stage",
    "import_paddle": "segslim.paddle_compat",
    "prune": "segslim.channels",
    "prune_by_ratio": "segslim.channels",
    "read_pdparams": "segslim.networks.pdparams",
    "score_filters": "segslim.channels.importance",
    "stage": "segslim.pipeline.stage",
}
__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"segslim has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return __all__
