"""Sessions as the config wants them: the engine that was selected, on so many threads."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from segslim.config import Config
from segslim.deployment.engines import Session, open_session
from segslim.machine import cores
from segslim.pipeline.stage import BASELINE
from segslim.records import ENGINE, read_record


def open_selected(engine: Path, deployment: Path, config: Config) -> Session:
    """Loads `deployment` with the engine that the artifact `engine` names."""
    found = read_record(engine, ENGINE)
    return open_session(found["engine"], deployment, threads=threads(config), precision=found["precision"])


def open_lanes(inputs: Mapping[str, Path], config: Config) -> dict[str, Session]:
    """{"baseline", "compressed"}: each deployment in the engine selected for it; of a network alone "compressed"."""
    alone = inputs["baseline deployment"] == inputs["deployment"]
    lanes = {"compressed": ""} if alone else {"baseline": BASELINE, "compressed": ""}
    return {
        lane: open_selected(inputs[prefix + "engine"], inputs[prefix + "deployment"], config)
        for lane, prefix in lanes.items()
    }


def prediction(session: Session, config: Config) -> Callable[[], list[np.ndarray]]:
    """Runs the session on one random image of dataset.size: what every latency here is that of."""
    width, height = config.dataset.size
    image = np.random.default_rng(0).standard_normal((1, 3, height, width), np.float32)
    return lambda: session.run({session.input_names[0]: image})


def threads(config: Config) -> int:
    """engine.threads, where 0 stands for every core that this process may use."""
    return config.engine.threads or cores()
