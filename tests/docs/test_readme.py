"""What the two READMEs name is there."""

import re

import pytest

from tests.command import ROOT

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
