"""python -m segslim.reporting: the same as `python -m segslim report`."""

import sys

from segslim.commands import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
