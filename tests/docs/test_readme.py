"""What the two READMEs name is there, and each command of the README goes through on a small network."""

import re
import shlex

import pytest

from segslim.networks.network import build_network, weights_of
from segslim.networks.weight_files import write_pdparams
from segslim.pipeline.plan import plan
from segslim.pipeline.runner import run
from segslim.pipeline.store import Store
from segslim.reporting.report import WANTED
from segslim.stages import STAGES
from segslim.stages.strategy import resolve
from tests.command import ROOT, config
from tests.data import layouts
from tests.pipeline.toy import Silent
from tests.stages.test_orders import SMALL, SMALL_COMPRESS

READMES = [ROOT / "README.md", ROOT / "README_CN.md"]
GROUPS = [folder.name for folder in (ROOT / "conf").iterdir() if folder.is_dir()]


@pytest.mark.parametrize("readme", READMES, ids=lambda readme: readme.stem)
def test_every_option_in_a_command_exists(readme):
    text = readme.read_text(encoding="utf-8")
    named = [
        (group, option)
        for command in re.findall(r"(?:uv run|python) [^`\n]+", text)
        for group, options in re.findall(rf" ({'|'.join(GROUPS)})=([\w,]+)", command)
        for option in options.split(",")
    ]
    assert named
    assert [f"{g}={o}" for g, o in named if not (ROOT / "conf" / g / f"{o}.yaml").exists()] == []


@pytest.mark.parametrize("readme", READMES, ids=lambda readme: readme.stem)
def test_every_link_leads_to_a_file(readme):
    links = re.findall(r"\]\(([^)#]+)\)", readme.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_the_chinese_readme_has_the_english_ones_blocks():
    english, chinese = (
        [re.sub(r" *#.*", "", block) for block in re.findall(r"^```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]
        for text in (readme.read_text(encoding="utf-8") for readme in READMES)
    )
    assert [block for block in english if block not in chinese] == []


ELSEWHERE = ("paddleseg=", "experiment=", "--", "-m", "model=", "device=gpu", "compress=front")  # have their own tests
COMMANDS = dict.fromkeys(
    command.strip()
    for command in re.findall(r"`uv run run\.py([^`]*)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    if not any(word in command for word in (*ELSEWHERE, "..."))
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the commands name: photographs with labels and without, and weights of the network."""
    folder = tmp_path_factory.mktemp("readme")
    layouts.folder(folder / "DIR")
    layouts.folder(folder / "PHOTOS")
    (folder / "best_model").mkdir()
    weights = weights_of(build_network(config(*SMALL, "model.network.num_classes=2").model.network, seed=0))
    for name in ("mine.pdparams", "best_model/model.pdparams"):
        write_pdparams(folder / name, weights)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_goes_through(folder, command, monkeypatch):
    monkeypatch.chdir(folder)
    typed = shlex.split(command)
    keys = {word.partition("=")[0] for word in typed}
    small = [word for word in SMALL if word.partition("=")[0] not in keys and not word.startswith("train.checkpoint")]
    if "dataset" in keys:
        small = [word for word in small if not word.startswith("dataset.source")]
    classes = next((word.partition("=")[2] for word in typed if word.startswith("dataset.num_classes")), "2")
    given = [*small, *typed, f"model.network.num_classes={classes}", f"store={folder / 'store'}"]
    foreign = {*keys, *(() if "ptq" in command else ("compress.calibration.images",))}
    given += [f"++{key}={value}" for key, value in SMALL_COMPRESS.items() if key not in foreign]
    made = run(plan(resolve(config(*given)), STAGES, WANTED), Store(folder / "store"), Silent())
    assert any(outcome.step.stage.name == "export" for outcome in made)
