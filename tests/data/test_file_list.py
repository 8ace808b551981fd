"""Lists in PaddleSeg's format are read, and what is wrong with one is named with its line."""

import re
from pathlib import Path

import pytest

from segslim.data import FileList
from segslim.errors import UserError
from tests.data.files import write_file_list


def refused(dataset: FileList, split: str = "train") -> str:
    with pytest.raises(UserError) as error:
        dataset.pairs(Path(), split)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("separator", [" ", "\t", ",", "|"])
def test_pairs_are_those_of_the_list_whatever_the_separator(tmp_path, separator):
    dataset = write_file_list(tmp_path / "any root", separator=separator)
    train, val = dataset.pairs(tmp_path, "train"), dataset.pairs(tmp_path, "val")
    assert [pair.line for pair in train] == [1, 2, 3]
    assert len(val) == 1
    assert all(pair.image.is_file() and pair.label.is_file() for pair in train + val)
    assert train[1].image.name == train[1].label.name
    assert {pair.list_file for pair in val} == {tmp_path / "any root" / "val.txt"}


def test_paths_with_spaces_work_with_a_tab_between(tmp_path):
    assert " " in write_file_list(tmp_path, separator="\t").pairs(tmp_path, "val")[0].image.name


def test_blank_lines_other_line_ends_and_a_byte_order_mark_are_overlooked(tmp_path):
    dataset = write_file_list(tmp_path)
    text = (tmp_path / "train.txt").read_text().replace("\n", "  \r\n\r\n")
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [pair.line for pair in dataset.pairs(tmp_path, "train")] == [1, 3, 5]


def test_lists_may_lie_elsewhere_and_name_files_by_absolute_paths(tmp_path):
    pairs = write_file_list(tmp_path / "data").pairs(tmp_path, "train")
    elsewhere = tmp_path / "lists.txt"
    elsewhere.write_text("".join(f"{pair.image} {pair.label}\n" for pair in pairs))
    found = FileList(tmp_path, elsewhere, elsewhere).pairs(tmp_path, "val")
    assert [pair.image for pair in found] == [pair.image for pair in pairs]


def test_a_missing_root_is_named(tmp_path):
    assert re.search(
        r"folder .*nowhere does not exist: set dataset\.root", refused(FileList(tmp_path / "nowhere", "a", "b"))
    )


def test_a_missing_list_is_named_with_its_key(tmp_path):
    dataset = write_file_list(tmp_path)
    (tmp_path / "val.txt").unlink()
    assert re.search(r"val\.txt does not exist: set dataset\.val_list", refused(dataset, "val"))


def test_an_empty_list_is_named(tmp_path):
    dataset = write_file_list(tmp_path)
    (tmp_path / "train.txt").write_text("\n")
    assert re.search(r"train\.txt is empty", refused(dataset))


@pytest.mark.parametrize(("line", "columns"), [("only.png", 1), ("a b.png c.png", 3)])
def test_a_line_without_two_columns_is_named(tmp_path, line, columns):
    dataset = write_file_list(tmp_path)
    with (tmp_path / "train.txt").open("a") as file:
        file.write(line)
    assert re.search(rf"train\.txt:4 has {columns} columns.*dataset\.separator", refused(dataset))


def test_a_column_that_is_empty_is_named(tmp_path):
    dataset = write_file_list(tmp_path, separator=",")
    (tmp_path / "train.txt").write_text("images/my 0.png,\n")
    assert "train.txt:1 has 2 columns" in refused(dataset)


@pytest.mark.parametrize("kind", ["image", "label"])
def test_a_missing_file_is_named_with_the_line_of_the_list(tmp_path, kind):
    dataset = write_file_list(tmp_path)
    (tmp_path / f"{kind}s" / "1.png").unlink()
    assert re.search(rf"train\.txt:2 names the {kind} .*1\.png, which does not exist", refused(dataset))
