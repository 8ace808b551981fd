"""uv run run.py compress=prune compress.ratio=0.2    (all keys: --help, --cfg job; sweeps: -m)"""

from typing import Any

from segslim import streams
from segslim.errors import end_by_signals


def main(config: Any) -> float | tuple[float, ...] | None:
    from segslim.main import run

    return run(config)


if __name__ == "__main__":
    streams.prepare()
    end_by_signals()  # before the imports below, which take a second
    import sys

    import hydra

    from segslim.command_line import quoted
    from segslim.main import answered, exit_codes
    from segslim.paddleseg import register

    told = answered(sys.argv[1:])
    if told is not None:
        print(told)
        sys.exit()
    register()  # paddleseg=FILE.yml
    with exit_codes():
        sys.argv[1:] = quoted(sys.argv[1:])
        hydra.main(version_base="1.3", config_path="conf", config_name="config")(main)()
