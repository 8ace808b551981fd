"""Runs that `python -m paddle.distributed.launch` starts, on one host or several: the first is the run, and the others
start a process for each of its trainings. They share the store's folder.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segslim.errors import UserError

LOOK = 0.2  # seconds between two looks for a job
END = "end"


@dataclass(frozen=True)
class Launch:
    """The place of this run among those launched together, and the folder where the first tells the others."""

    rank: int
    size: int
    folder: Path

    def check(self, stage: str, batch_size: int) -> None:
        """Raises UserError when a batch cannot be shared out equally."""
        if batch_size % self.size:
            raise UserError(
                f"{stage}.batch_size={batch_size}: should be a multiple of {self.size}, the launched processes"
            )

    def publish(self, job: Mapping[str, Any]) -> None:
        """Tells the others what to train with this one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        number = len(list(self.folder.glob("*.json")))
        unfinished = self.folder / "unfinished"
        unfinished.write_text(json.dumps(job), encoding="utf-8")
        unfinished.replace(self.folder / f"{number}.json")

    def help(self, train: Callable[[Mapping[str, Any]], Any]) -> None:
        """Calls `train(job)` for every job of the first run, until that ends."""
        number = 0
        while True:
            file, ended = self.folder / f"{number}.json", (self.folder / END).exists()
            if file.exists():
                train(json.loads(file.read_text(encoding="utf-8")))
                number += 1
            elif ended:
                return
            else:
                time.sleep(LOOK)


def launch_of(store: str) -> Launch | None:
    """The launch that this process is of, by the variables that Paddle's launcher sets."""
    size = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))
    if size == 1:
        return None
    addresses = os.environ["PADDLE_TRAINER_ENDPOINTS"]  # of ports chosen anew for each launch
    name = hashlib.sha256(addresses.encode()).hexdigest()[:20]
    return Launch(int(os.environ["PADDLE_TRAINER_ID"]), size, Path(store).absolute() / "launched" / name)


@contextmanager
def told_when_it_ends(launch: Launch | None) -> Iterator[None]:
    """Around the first run: lets the others go when it ends, however it ends."""
    try:
        yield
    finally:
        if launch is not None:
            launch.folder.mkdir(parents=True, exist_ok=True)
            (launch.folder / END).touch()
