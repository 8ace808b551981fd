"""A Hydra application whose jobs take no time: what they are given is written to tried.txt. It dies at x=DIE once."""

import os
import signal
from pathlib import Path

import hydra

from tests.command import ROOT


def main(config) -> float | None:
    with Path("tried.txt").open("a", encoding="utf-8") as file:
        file.write(f"{config.x} {config.get('y')}\n")
    if str(config.x) == os.environ.get("DIE") and not Path("died").exists():
        Path("died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return None if config.x == 7 else (config.x - 3) ** 2


if __name__ == "__main__":
    hydra.main(version_base="1.3", config_path=str(ROOT / "tests" / "searched"), config_name="config")(main)()
