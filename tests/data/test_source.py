"""A data set's identity follows its content, not its place, and unchanged files are read once."""

import json
import os
import shutil
import time

import pytest

from segslim.data import FileList
from segslim.data.source import digest_of_pairs
from segslim.errors import UserError
from tests.data import layouts


@pytest.fixture
def dataset(tmp_path):
    return layouts.file_list(tmp_path / "data")


def identity_a_minute_later(dataset, cache):
    """As `identity`, at a time when files written for the test are no longer too young for the cache."""
    splits = {split: dataset.pairs(None, split) for split in ("train", "val")}
    return digest_of_pairs(splits, cache, now=lambda: time.time() + 60)


def test_moving_or_renaming_changes_nothing(tmp_path, dataset):
    before = dataset.identity()
    moved = shutil.move(tmp_path / "data", tmp_path / "moved")
    assert FileList(moved, "train.txt", "val.txt").identity() == before
    assert layouts.file_list(tmp_path / "renamed", separator="\t").identity() == before


@pytest.mark.parametrize("name", ["images/0.png", "labels/0.png", "labels/3.png"])
def test_one_changed_byte_changes_it(tmp_path, dataset, name):
    before = dataset.identity()
    path = tmp_path / "data" / name
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    assert dataset.identity() != before


def test_order_splits_and_pairing_change_it(tmp_path, dataset):
    train = (tmp_path / "data" / "train.txt").read_text().splitlines()
    identities = {dataset.identity()}
    swapped = [
        train[0].split()[0] + " " + train[1].split()[1],
        train[1].split()[0] + " " + train[0].split()[1],
        train[2],
    ]
    for lines in (train[::-1], train[:2], swapped):
        (tmp_path / "data" / "train.txt").write_text("\n".join(lines))
        identities.add(dataset.identity())
    identities.add(FileList(tmp_path / "data", "val.txt", "train.txt").identity())
    assert len(identities) == 5


def test_the_cache_gives_the_same_answer_without_reading(tmp_path, dataset):
    cache = tmp_path / "cache" / "hashes.json"
    assert identity_a_minute_later(dataset, cache) == dataset.identity()
    stored = json.loads(cache.read_text())
    assert len(stored) == 8
    # An entry that lies is believed: so the file was not read again.
    key = str(tmp_path / "data" / "images" / "0.png")
    stored[key][1] = "0" * 64
    cache.write_text(json.dumps(stored))
    assert dataset.identity(cache) != dataset.identity()


def test_a_change_is_seen_through_the_cache_even_when_size_and_modification_time_stay(tmp_path, dataset):
    cache = tmp_path / "hashes.json"
    before = identity_a_minute_later(dataset, cache)
    path = tmp_path / "data" / "labels" / "0.png"
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert dataset.identity(cache) != before


def test_files_written_this_moment_are_not_trusted_to_the_cache(tmp_path, dataset):
    cache = tmp_path / "hashes.json"
    dataset.identity(cache)
    assert not cache.exists()


def test_a_broken_cache_is_rebuilt(tmp_path, dataset):
    cache = tmp_path / "hashes.json"
    for broken in ("", "[]", '{"a": 1}', "\x00"):
        cache.write_text(broken)
        assert dataset.identity(cache) == dataset.identity()


def test_a_file_that_went_missing_is_named_with_the_line_of_the_list(tmp_path, dataset):
    (tmp_path / "data" / "labels" / "2.png").unlink()
    with pytest.raises(UserError, match=r"train\.txt:3: the label .*2\.png .*No such file"):
        dataset.identity()
