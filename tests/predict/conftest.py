import pytest

from tests.command import poison
from tests.predict.exports import SIZE, write_export


@pytest.fixture(scope="session")
def export_folder(tmp_path_factory):
    """A network of fixed size that gives class ids."""
    return write_export(tmp_path_factory.mktemp("export"), size=SIZE)


@pytest.fixture(scope="session")
def no_paddle(tmp_path_factory):
    return poison(tmp_path_factory.mktemp("no_paddle"))
