"""Whatever stands in a PaddleSeg config, it is taken over or refused in one line; nothing else is raised."""

import copy

import pytest
import yaml
from hydra.plugins.config_source import ConfigLoadError

from segslim.paddleseg.source import PaddleSegSource
from tests.paddleseg.fragments import NORMALIZE, crop, lists, losses, mixed, network, padding, quick_start

WHOLE = {
    **quick_start(
        model=network("FCN", "HRNet_W18", backbone_indices=[-1]),
        loss=losses(mixed("CrossEntropyLoss", "DiceLoss", coef=[1, 1])),
        export={"transforms": [padding(64, 64), NORMALIZE]},
        test_config={"aug_eval": False},
        train={"seed": 1, "precision": "fp32"},
    ),
    **lists("data/mine", [crop(64, 64), NORMALIZE], [NORMALIZE], ignore_index=255, separator=" "),
}
JUNK = (None, "junk", 3, -1.5, True, [1], ["junk"], {"type": "UNet"}, {"type": [1]}, {3: 4})


def places(value, path=()):
    """The path to every value in nested dicts and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, nested in inner:
        yield (*path, key)
        yield from places(nested, (*path, key))


@pytest.mark.parametrize("junk", JUNK, ids=str)
def test_junk_anywhere_is_a_config_or_one_line(tmp_path, monkeypatch, junk):
    monkeypatch.chdir(tmp_path)
    for path in places(WHOLE):
        config = copy.deepcopy(WHOLE)
        holder = config
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = junk
        try:
            (tmp_path / "mine.yml").write_text(yaml.safe_dump(config))
            for group in ("", "dataset/", "model/"):
                PaddleSegSource("segslim", "paddleseg://").load_config(f"{group}paddleseg/mine.yml")
        except ConfigLoadError as refusal:
            assert str(refusal).startswith("mine.yml: ") and "\n" not in str(refusal), path
        except Exception as error:
            raise AssertionError(f"{path} = {junk!r}") from error
