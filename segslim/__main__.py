"""python -m segslim store | predict | report | network"""

import sys

from segslim import screen

if __name__ == "__main__":
    screen.prepare()
    from segslim.commands import main

    sys.exit(main())
