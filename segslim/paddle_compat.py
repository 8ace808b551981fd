"""Workarounds for defects of Paddle that several rooms meet. Each says for which versions it holds and how to see that it can go."""

import zlib
from types import ModuleType


def import_paddle() -> ModuleType:
    """Imports Paddle after zlib has been used once.

    Paddle 2.6.2 loads its own zlib symbols globally, and where Python's zlib is a shared module its first use after that crashes
    (SIGSEGV in `inflateReset2`). It can go with Paddle 2.6: `import paddle, sklearn` then no longer crashes on such a Python.
    """
    zlib.decompress(zlib.compress(b""))
    import paddle

    return paddle
