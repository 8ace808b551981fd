"""python -m segslim.networks CHECKPOINT FOLDER: a network for use without segslim (segslim/networks/standalone.py)."""

import argparse
import sys

from segslim.errors import exit_code_of
from segslim.networks.standalone import write_standalone


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m segslim.networks",
        description="Writes model.pdparams, and load_network.py, which rebuilds the network with PaddleSeg alone.",
    )
    parser.add_argument("checkpoint", help="a checkpoint: .segslim/artifacts/retrain-.../, or train-..., prune-...")
    parser.add_argument("folder", help="where to write")
    given = parser.parse_args()
    return exit_code_of(lambda: _write(given.checkpoint, given.folder))


def _write(checkpoint: str, folder: str) -> int:
    print(f"{folder}: {', '.join(write_standalone(checkpoint, folder))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
