"""python -m segslim store | predict | deployment | devices | report | network"""

import sys

from segslim import streams

if __name__ == "__main__":
    streams.prepare()
    from segslim.commands import main

    sys.exit(main())
