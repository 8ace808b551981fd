"""python -m segslim.reporting DIR: the page of a run, or of a sweep with its table and sweep.csv."""

import argparse
import sys
from pathlib import Path

from segslim.errors import exit_code_of
from segslim.reporting.page import write_page
from segslim.reporting.sweep import is_sweep, write_sweep


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m segslim.reporting", description=__doc__)
    parser.add_argument("folder", type=Path, help="of a run (outputs/DATE/TIME-...) or a sweep (multirun/DATE/TIME)")
    folder = parser.parse_args().folder
    return exit_code_of(lambda: _write(folder))


def _write(folder: Path) -> int:
    if is_sweep(folder):
        write_sweep(folder)
    else:
        print(write_page(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
