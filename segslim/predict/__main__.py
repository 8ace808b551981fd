"""python -m segslim.predict: the same as `python -m segslim predict`."""

import sys

from segslim.commands import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
