"""python -m segslim.networks: the same as `python -m segslim network`."""

import runpy
import sys

if __name__ == "__main__":
    sys.argv[1:1] = ["network"]
    runpy.run_module("segslim", run_name="__main__")
