import pytest
from hydra import compose, initialize_config_dir

from segslim.paddleseg import register
from segslim.paddleseg.section import warn_once
from tests.command import ROOT


@pytest.fixture
def composed(tmp_path, monkeypatch):
    """Composes the whole config for what is typed, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    register()
    warn_once.cache_clear()

    def compose_for(*overrides):
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return compose("config", overrides=list(overrides))

    return compose_for
