"""Configs in the shapes of PaddleSeg's documentation and tutorials compose to configs of ours."""

import copy

import pytest
from omegaconf import OmegaConf

from segslim.config import validate
from segslim.networks.network import build_network
from segslim.training.losses import build_losses
from tests.paddleseg.fragments import ADDRESS, MODELS, quick_start, write
from tests.paddleseg.networks import NETWORKS
from tests.paddleseg.variants import VARIANTS

CONFIGS = NETWORKS | VARIANTS


def at(config, key):
    for part in key.split("."):
        config = config[int(part) if isinstance(config, list) else part]
    return config


@pytest.mark.parametrize(("config", "expected"), CONFIGS.values(), ids=CONFIGS)
def test_a_paddleseg_config_becomes_ours(composed, tmp_path, config, expected):
    ours = composed(f"paddleseg={write(tmp_path, config)}", "compress=prune", "compress.ratio=0.3")
    assert validate(ours).compress.ratio == 0.3
    plain = OmegaConf.to_container(ours, resolve=True)
    assert {key: at(plain, key) for key in expected} == expected


def test_the_command_line_wins_over_the_file_and_chooses_other_options(composed, tmp_path):
    file = write(tmp_path, quick_start())
    typed = [
        "train.iters=5",
        "dataset.size=[64,96]",
        "retrain.learning_rate=0.5",
        "model=unet",
        "dataset.root=/elsewhere",
    ]
    ours = validate(composed(f"paddleseg={file}", *typed))
    assert (ours.train.iters, ours.retrain.iters, ours.retrain.learning_rate) == (5, 5, 0.5)
    assert ours.model.name == "unet" and ours.model.network["num_classes"] == 2
    assert ours.dataset.source["root"] == "/elsewhere" and ours.dataset.name == "optic_disc"
    assert ours.dataset.train_transforms[0]["target_size"] == ours.dataset.val_transforms[0]["target_size"] == [64, 96]


def test_the_file_replaces_our_model_and_data_set_as_a_whole(composed, tmp_path):
    ours = composed(f"paddleseg={write(tmp_path, quick_start())}")
    assert set(ours.model.network) == {"_target_", "num_classes", "pretrained"}
    assert "train_images" not in ours.dataset.source


def test_what_is_changed_is_said_in_one_warning_each(composed, tmp_path, caplog):
    file = write(tmp_path, CONFIGS["fcn_hrnetw18 on cityscapes"][0])
    composed(f"paddleseg={file}")
    composed(f"paddleseg={file}")
    first, second = sorted(record.message for record in caplog.records)
    address = ADDRESS.format("hrnet_w18_ssld")
    assert first.startswith(f"{file}: model.backbone.pretrained = {address} is not downloaded: give weights by train.c")
    assert second.startswith(f"{file}: val_dataset.transforms resize images to [1024, 512], the size of training, too")


def test_the_quick_start_data_is_downloaded_only_where_it_is_not(composed, tmp_path, caplog):
    typed = f"paddleseg={write(tmp_path, quick_start())}"
    assert composed(typed).dataset.root is None and "data/optic_disc_seg does not exist" in caplog.text
    (tmp_path / "data" / "optic_disc_seg").mkdir(parents=True)
    assert composed(typed).dataset.root == "data/optic_disc_seg"


BUILT = ("pp_liteseg_stdc1 on cityscapes", "stdcseg with its detail loss", "hardnet with bootstrapping and warmup")


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT)
def test_the_network_and_its_losses_can_be_built(composed, tmp_path, name):
    config = copy.deepcopy(CONFIGS[name][0])
    config["model"].get("backbone", {}).pop("pretrained", None)
    ours = validate(composed(f"paddleseg={write(tmp_path, config)}"))
    assert type(build_network(ours.model.network)).__name__ == config["model"]["type"]
    assert len(build_losses(ours.model.loss).types) == len(config["loss"]["coef"])


def test_an_absolute_path_and_the_long_suffix_will_do(composed, tmp_path):
    write(tmp_path, quick_start(), "mine.yaml")
    ours = composed(f"paddleseg={tmp_path}/configs/net/mine.yaml")
    assert ours.model.network._target_ == MODELS + "BiSeNetV2"
