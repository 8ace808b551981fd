import json
import os
from pathlib import Path

import pytest


@pytest.fixture
def record(request):
    """Notes a fault that was injected; --faults-log=FILE keeps them for docs/faults.md."""
    file = request.config.getoption("--faults-log")

    def note(fault: str, where: str, outcome: object, lost_seconds: float) -> None:
        line = json.dumps({"fault": fault, "where": where, "outcome": str(outcome), "lost": round(lost_seconds, 3)})
        print(line)
        if file:
            with Path(file).open("a", encoding="utf-8") as log:
                log.write(line + os.linesep)

    return note
