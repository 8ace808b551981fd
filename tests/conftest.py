"""Two test processes share the cores (-n in pyproject.toml): Paddle's CPU kernels then take one each."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
