"""Two test processes share the cores (-n in pyproject.toml): Paddle's CPU kernels then take one each.

Whatever a test draws, it draws from one seed, printed at the head of the run: --hypothesis-seed=N gives another.
"""

import os
from collections import Counter

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser):
    parser.addoption("--faults-log", help="a file to which every injected fault is added, a line of JSON each")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = 0


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What is long is slow, too. The files with the most slow tests first: no process works alone on one at the end."""
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker("slow")
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def pytest_report_header(config):
    return f"random tests: --hypothesis-seed={config.option.hypothesis_seed}"


@pytest.fixture
def random_seed(request) -> int:
    """The seed of a test that draws by itself."""
    return int(request.config.option.hypothesis_seed)
