"""uv run run.py compress=prune compress.ratio=0.2    (all keys: --help, --cfg job; sweeps: -m)"""

import hydra
from omegaconf import DictConfig

from segslim.main import exit_codes, run
from segslim.paddleseg import register


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> float | tuple[float, ...] | None:
    return run(config)


if __name__ == "__main__":
    register()  # paddleseg=FILE.yml
    with exit_codes():
        main()
