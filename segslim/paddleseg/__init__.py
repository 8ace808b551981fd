"""PaddleSeg's YAML configs as ours: `paddleseg=configs/mine.yml` on the command line.

A YAML file comes in, a config goes out, and a `UserError` names what has no counterpart here. The room knows nothing
else of this package, and does not import Paddle.

Hydra's view of PaddleSeg's YAML files: each is an option of the group `paddleseg`.

`paddleseg=FILE` chooses `model=paddleseg/FILE` and `dataset=paddleseg/FILE`, so that they replace ours completely, and
changes keys of `train` and `retrain`. Overrides, `--cfg job` and sweeps then work as for any other group.
"""

import builtins
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from segslim.command_line import expanded
from segslim.errors import UserError
from segslim.paddleseg.dataset import translate_dataset
from segslim.paddleseg.section import read
from segslim.paddleseg.training import translate_model, translate_recipe, translate_training

GROUP = "paddleseg"


def register() -> None:
    """Makes `paddleseg=FILE` known to Hydra; to be called before `hydra.main`."""
    for plugin in (PaddleSegSource, PaddleSegSearchPath):
        Plugins.instance().register(plugin)


class PaddleSegSource(ConfigSource):
    """Serves paddleseg/FILE, model/paddleseg/FILE and dataset/paddleseg/FILE."""

    @staticmethod
    def scheme() -> str:
        return GROUP

    def load_config(self, config_path: str) -> ConfigResult:
        group, _, file = config_path.partition(f"{GROUP}/")
        try:
            option = _option(group, file)
        except UserError as error:
            raise ConfigLoadError(str(error)) from None
        header: dict[str, str | None] = {"package": None if group else "_global_"}
        return ConfigResult(self.provider, f"{GROUP}://{file}", OmegaConf.create(option), header)

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path in ("", GROUP)

    def is_config(self, config_path: str) -> bool:
        group, _, file = config_path.partition(f"{GROUP}/")
        # Hydra looks for paddleseg/None where paddleseg is null.
        return group in ("", "model/", "dataset/") and file not in ("", "None")

    def list(self, config_path: str, results_filter: ObjectType | None) -> builtins.list[str]:
        return {"": [GROUP], GROUP: ["FILE.yml"]}.get(config_path, [])


class PaddleSegSearchPath(SearchPathPlugin):
    """Makes Hydra look for options in PaddleSegSource too."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="segslim", path=f"{GROUP}://")


def _option(group: str, file: str) -> dict[str, Any]:
    config = read(expanded(file))
    if group == "model/":
        return {"name": Path(file).stem, **translate_model(config)}
    if group == "dataset/":
        return {**translate_dataset(config), "recipe": translate_recipe(config)}
    groups = [{f"override /{group}": f"{GROUP}/{file}"} for group in ("model", "dataset")]
    return {"defaults": ["_self_", *groups], **translate_training(config)}
