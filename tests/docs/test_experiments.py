"""Every experiment composes to a valid config, and those of PaddleSeg's tutorial say what it says."""

from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from segslim.config import Config
from segslim.reporting.metrics import check_objective
from tests.command import ROOT, config

EXPERIMENTS = sorted(file.stem for file in (ROOT / "conf" / "experiment").glob("*.yaml"))
RATIOS = {"compress.ratio": "0.1,0.2,0.3"}
TABLES = {
    "cityscapes_fast_scnn": ("prune", "fast_scnn", RATIOS),
    "cityscapes_fcn_hrnetw18": ("prune", "fcn_hrnetw18", RATIOS),
    "cityscapes_unet": ("prune", "unet", RATIOS),
    "cityscapes_quant": ("quant", "deeplabv3", {"model": "deeplabv3,deeplabv3p,gcnet,pspnet"}),
}
TUTORIALS_NETWORKS = ("bisenetv2", "fcn_hrnetw18", "fast_scnn", "hardnet", "unet")


def _config(*overrides: str) -> Config:
    return config(*overrides, "dataset.root=/data")


def _sweeper(experiment: str) -> dict[str, Any]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = compose("config", [f"experiment={experiment}"], return_hydra_config=True)
    return OmegaConf.to_container(composed.hydra.sweeper, resolve=True)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_is_a_valid_config(name: str) -> None:
    made = _config(f"experiment={name}")
    assert made.stages.first == ["data", "train"]
    assert made.compress.name in ("none", "quant") or made.compress.ratio in (0.2, 0.5)


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name.startswith("search_")])
def test_a_search_has_a_direction_for_each_figure_and_a_seed_so_that_it_can_go_on(name: str) -> None:
    objective, sweeper = _config(f"experiment={name}").objective, _sweeper(name)
    check_objective(objective)
    directions = [sweeper["direction"]] if isinstance(sweeper["direction"], str) else sweeper["direction"]
    assert len(directions) == len(objective.figures)
    assert sweeper["sampler"]["seed"] is not None and sweeper["max_failure_rate"] == 1


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_the_tutorial_is_a_sweep_over_its_rows_at_the_size_of_the_images(name: str) -> None:
    strategy, model, swept = TABLES[name]
    made = _config(f"experiment={name}")
    assert (made.compress.name, made.model.name) == (strategy, model)
    assert made.dataset.size == made.export.size == (2048, 1024)
    assert _sweeper(name)["params"] == swept


@pytest.mark.parametrize("model", TUTORIALS_NETWORKS)
def test_every_network_of_the_tutorial_can_be_pruned_on_cityscapes(model: str) -> None:
    made = _config("experiment=cityscapes_prune", f"model={model}")
    assert (made.model.name, made.dataset.num_classes) == (model, 19)


@pytest.mark.parametrize(("step", "iters"), [("prune", 100), ("quantize", 10)])
def test_the_tutorials_second_steps_share_their_training(step: str, iters: int) -> None:
    first, second = (_config(f"experiment=tutorial_{name}") for name in ("train", step))
    assert first.train == second.train and first.model == second.model and first.dataset == second.dataset
    assert second.retrain.iters == iters
