"""Sessions as the config wants them: the engine that was selected, on so many threads."""

import json
import os
from pathlib import Path

from segslim.config import Config
from segslim.engines import Session, open_session


def open_selected(engine: Path, deployment: Path, config: Config) -> Session:
    """Loads `deployment` with the engine that the artifact `engine` names."""
    found = json.loads((engine / "engine.json").read_text(encoding="utf-8"))
    return open_session(found["chosen"], deployment, threads=threads(config), precision=found["precision"])


def threads(config: Config) -> int:
    """engine.threads, where 0 stands for every core that this process may use."""
    return config.engine.threads or len(os.sched_getaffinity(0))
