"""A run of a launch that trains by idle_worker, without Paddle: as run.py does, it agrees, then leads or follows.

Its arguments are JSON: {facts, store, trainings: [[how process 0 ends, how process 1 ends], ...], waits}.
"""

import json
import sys
import time
from pathlib import Path

from segslim.errors import Interrupted, UserError, deferred, end_by_signals
from segslim.training.launch import Launch

COMMAND = [sys.executable, "-m", "tests.training.idle_worker"]


def main() -> None:
    asked = json.loads(sys.argv[1])
    launch = Launch.of_this_process()
    assert launch is not None
    with launch.together():
        launch.agree(asked["facts"], Path(asked["store"]))
        print("agreed", flush=True)
        if launch.rank > 0:
            return launch.follow(COMMAND)
        for ends in asked["trainings"]:
            with deferred() as stop:
                job = {"ends": ends, "given": 1}
                print(launch.train(COMMAND, job, "cpu", lambda *message: print(*message, flush=True), stop), flush=True)
        if asked.get("waits"):
            time.sleep(600)


if __name__ == "__main__":
    end_by_signals()
    try:
        main()
    except (UserError, Interrupted) as error:
        print(error, file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else error.exit_code)
