"""The table of stages and the folder: a file a stage, none of which knows another."""

import grimp
import pytest

from segslim.stages import STAGES

FILES = {stage.function.partition(":")[0] for stage in STAGES.values()}


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("segslim", cache_dir=None)


def test_every_file_is_a_stages_but_those_that_make_the_table_and_the_list(imports):
    found = imports.find_children("segslim.stages")
    assert found - FILES == {f"segslim.stages.{name}" for name in ("checks", "identities", "shared", "strategy")}


def test_no_stage_is_imported_by_the_room_nor_by_another(imports):
    importers = {importer for file in FILES for importer in imports.find_modules_that_directly_import(file)}
    assert importers == set()


def test_what_stages_share_knows_nothing_of_the_table(imports):
    above = {"segslim.stages", "segslim.stages.checks", "segslim.stages.identities", "segslim.stages.strategy"}
    assert not any(
        above & imports.find_modules_directly_imported_by(name)
        for name in imports.find_descendants("segslim.stages.shared")
    )
