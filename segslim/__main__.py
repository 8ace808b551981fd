"""python -m segslim store | predict | report | network"""

import sys

from segslim.commands import main

if __name__ == "__main__":
    sys.exit(main())
