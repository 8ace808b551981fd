"""Every page of docs/ does what it says: each block is run, in order, in a copy of the checkout."""

import pytest

from tests.command import ROOT
from tests.docs.page import blocks, follow

PAGES = sorted((ROOT / "docs").glob("*.md"))
#: Those that run the shipped strategies, as other tests do: left out of CI, which has 15 minutes (pytest -m long).
LONG = [page for page in PAGES if not page.stem.startswith("adding-")]


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """Shared by the pages: what one has trained, the next one finds."""
    return tmp_path_factory.mktemp("store")


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.stem, marks=[pytest.mark.long] if page in LONG else []) for page in PAGES]
)
def test_page_does_what_it_says(page, tmp_path, store):
    follow(page, tmp_path / "checkout", store)


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_page_is_a_page_long_and_has_something_to_run(page):
    assert len(page.read_text(encoding="utf-8").splitlines()) <= 110
    assert blocks(page)
