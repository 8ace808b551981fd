"""python -m segslim.reporting: the same as `python -m segslim report`."""

import runpy
import sys

if __name__ == "__main__":
    sys.argv[1:1] = ["report"]
    runpy.run_module("segslim", run_name="__main__")
