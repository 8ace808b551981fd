"""python -m segslim.predict: the same as `python -m segslim predict`."""

import runpy
import sys

if __name__ == "__main__":
    sys.argv[1:1] = ["predict"]
    runpy.run_module("segslim", run_name="__main__")
