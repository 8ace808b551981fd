"""Every page of docs/ does what it says: each block is run, in order, in a copy of the checkout."""

import pytest

from tests.command import ROOT
from tests.docs.page import blocks, follow

PAGES = sorted((ROOT / "docs").glob("*.md"))
#: All but these are followed before a release (pytest -m long): they run what other tests run, and CI has 15 minutes.
FOLLOWED = ("adding-a-criterion", "adding-an-operator-rule")


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """Shared by the pages: what one has trained, the next one finds."""
    return tmp_path_factory.mktemp("store")


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=page.stem, marks=[] if page.stem in FOLLOWED else [pytest.mark.long]) for page in PAGES],
)
def test_page_does_what_it_says(page, tmp_path, store):
    follow(page, tmp_path / "checkout", store)


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_page_is_a_page_long_and_has_something_to_run(page):
    assert len(page.read_text(encoding="utf-8").splitlines()) <= 110
    assert blocks(page)
