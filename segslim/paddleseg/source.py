"""Hydra's view of PaddleSeg's YAML files: each is an option of the group `paddleseg`.

`paddleseg=FILE` chooses `model=paddleseg/FILE` and `dataset=paddleseg/FILE`, so that they replace ours as a whole, and
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

from segslim.errors import UserError
from segslim.paddleseg import dataset, model, runtime, schedule
from segslim.paddleseg.reading import read

GROUP = "paddleseg"
NO_FILE = ("", "None")  # Hydra looks for paddleseg/None where paddleseg is null


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
            config = _option(group, file)
        except UserError as error:
            raise ConfigLoadError(str(error)) from None
        return ConfigResult(
            provider=self.provider,
            path=f"{GROUP}://{file}",
            config=OmegaConf.create(config),
            header={"package": None if group else "_global_"},
        )

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path in ("", GROUP)

    def is_config(self, config_path: str) -> bool:
        group, _, file = config_path.partition(f"{GROUP}/")
        return group in ("", "model/", "dataset/") and file not in NO_FILE

    def list(self, config_path: str, results_filter: ObjectType | None) -> builtins.list[str]:
        return {"": [GROUP], GROUP: ["FILE.yml"]}.get(config_path, [])


class PaddleSegSearchPath(SearchPathPlugin):
    """Has Hydra look for options in PaddleSegSource too."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="segslim", path=f"{GROUP}://")


def _option(group: str, file: str) -> dict[str, Any]:
    config = read(file)
    if group == "model/":
        return model.translate(config, name=Path(file).stem)
    if group == "dataset/":
        return dataset.translate(config)
    replaced = [{f"override /{replaced}": f"{GROUP}/{file}"} for replaced in ("model", "dataset")]
    changed = OmegaConf.merge(runtime.translate(config), schedule.translate(config))
    return {"defaults": ["_self_", *replaced], **changed}
