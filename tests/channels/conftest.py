from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from segslim.channels import ChannelGraph
from tests.channels.networks import OTHERS, TUTORIAL, paddle

INPUT = (1, 3, 64, 64)


@dataclass(frozen=True)
class Traced:
    """A network's graph, and how to build the network again."""

    graph: ChannelGraph
    build: Callable[[], Any]


@pytest.fixture(scope="session")
def traced() -> Callable[[str], Traced]:
    """Traces each network once a session."""
    found: dict[str, Traced] = {}

    def trace(name: str) -> Traced:
        if name not in found:
            builder = {**TUTORIAL, **OTHERS}[name]

            def build() -> Any:
                paddle.seed(1)
                return builder()

            found[name] = Traced(ChannelGraph.trace(build(), INPUT), build)
        return found[name]

    return trace
