"""Every experiment composes to a valid config, and those of PaddleSeg's tutorial say what it says."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from segslim.config import Config, validate
from segslim.reporting.metrics import check_objective
from tests.command import ROOT

EXPERIMENTS = sorted(file.stem for file in (ROOT / "conf" / "experiment").glob("*.yaml"))
TABLE = {"cityscapes_fast_scnn": "fast_scnn", "cityscapes_fcn_hrnetw18": "fcn_hrnetw18", "cityscapes_unet": "unet"}
TUTORIALS_NETWORKS = ("bisenetv2", "fcn_hrnetw18", "fast_scnn", "hardnet", "unet")


def _config(*overrides: str) -> Config:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return validate(compose("config", [*overrides, "dataset.root=/data"]))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_is_a_valid_config(name: str) -> None:
    config = _config(f"experiment={name}")
    assert config.compress.stages[:2] == ["data", "train"]
    assert config.compress.name in ("none", "quant") or config.compress.ratio == 0.2


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name.startswith("search_")])
def test_a_search_has_a_direction_for_each_figure_and_a_seed_so_that_it_can_go_on(name: str) -> None:
    config = _config(f"experiment={name}")
    check_objective(config.objective)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        sweeper = compose("config", [f"experiment={name}"], return_hydra_config=True).hydra.sweeper
    directions = [sweeper.direction] if isinstance(sweeper.direction, str) else sweeper.direction
    assert len(directions) == len(config.objective.figures)
    assert sweeper.sampler.seed is not None and sweeper.max_failure_rate == 1


@pytest.mark.parametrize(("name", "model"), TABLE.items())
def test_the_tutorials_table_is_a_sweep_over_its_ratios_at_its_size(name: str, model: str) -> None:
    config = _config(f"experiment={name}")
    assert (config.model.name, config.dataset.size, config.export.size) == (model, (2048, 1024), (2048, 1024))
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        hydra = compose("config", [f"experiment={name}"], return_hydra_config=True).hydra
    assert OmegaConf.to_container(hydra.sweeper.params) == {"compress.ratio": "0.1,0.2,0.3"}


@pytest.mark.parametrize("model", TUTORIALS_NETWORKS)
def test_every_network_of_the_tutorial_can_be_pruned_on_cityscapes(model: str) -> None:
    config = _config("experiment=cityscapes_prune", f"model={model}")
    assert (config.model.name, config.dataset.num_classes) == (model, 19)


def test_the_tutorials_table_of_quantized_networks_is_a_sweep_over_them() -> None:
    config = _config("experiment=cityscapes_quant")
    assert (config.compress.name, config.dataset.size, config.export.size) == ("quant", (2048, 1024), (2048, 1024))
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        hydra = compose("config", ["experiment=cityscapes_quant"], return_hydra_config=True).hydra
    assert OmegaConf.to_container(hydra.sweeper.params) == {"model": "deeplabv3,deeplabv3p,gcnet,pspnet"}


@pytest.mark.parametrize(("step", "iters"), [("prune", 100), ("quantize", 10)])
def test_the_tutorials_second_steps_share_their_training(step: str, iters: int) -> None:
    first, second = (_config(f"experiment=tutorial_{name}") for name in ("train", step))
    assert first.train == second.train and first.model == second.model and first.dataset == second.dataset
    assert second.retrain.iters == iters
