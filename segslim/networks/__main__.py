"""python -m segslim.networks: the same as `python -m segslim network`."""

import sys

from segslim.commands import main

if __name__ == "__main__":
    sys.exit(main(["network", *sys.argv[1:]]))
