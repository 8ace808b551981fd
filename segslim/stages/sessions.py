"""Sessions as the config wants them: the engine that was selected, on so many threads."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from segslim.config import Config
from segslim.engines import Session, open_session


def open_selected(engine: Path, deployment: Path, config: Config) -> Session:
    """Loads `deployment` with the engine that the artifact `engine` names."""
    found = json.loads((engine / "engine.json").read_text(encoding="utf-8"))
    return open_session(found["chosen"], deployment, threads=threads(config), precision=found["precision"])


def prediction(session: Session, config: Config) -> Callable[[], list[np.ndarray]]:
    """Runs the session on one random image of dataset.size: what every latency here is that of."""
    width, height = config.dataset.size
    image = np.random.default_rng(0).standard_normal((1, 3, height, width), np.float32)
    return lambda: session.run({session.input_names[0]: image})


def threads(config: Config) -> int:
    """engine.threads, where 0 stands for every core that this process may use."""
    return config.engine.threads or len(os.sched_getaffinity(0))
