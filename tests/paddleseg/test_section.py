"""A PaddleSeg file is merged over the files that it inherits from, as PaddleSeg does."""

import pytest
import yaml

from segslim.errors import UserError
from segslim.paddleseg.section import read


def files(folder, **contents):
    for name, content in contents.items():
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        (folder / f"{name}.yml").write_text(text)
    return str(folder / "a.yml")


def test_a_file_wins_over_its_base_key_by_key(tmp_path):
    file = files(
        tmp_path,
        a={"_base_": "./b.yml", "iters": 5, "optimizer": {"momentum": 0.5}},
        b={"iters": 1, "batch_size": 2, "optimizer": {"type": "sgd", "momentum": 0.9}},
    )
    assert read(file).values == {"iters": 5, "batch_size": 2, "optimizer": {"type": "sgd", "momentum": 0.5}}


def test_lists_are_replaced_not_joined(tmp_path):
    file = files(tmp_path, a={"_base_": "b.yml", "loss": {"coef": [1]}}, b={"loss": {"coef": [1, 2], "types": [3]}})
    assert read(file).values == {"loss": {"coef": [1], "types": [3]}}


def test_inherited_false_replaces_the_mapping_and_leaves_no_mark(tmp_path):
    replaced = {"_inherited_": False, "type": "AdamW"}
    file = files(
        tmp_path, a={"_base_": "b.yml", "optimizer": replaced}, b={"optimizer": {"type": "sgd", "momentum": 0.9}}
    )
    assert read(file).values == {"optimizer": {"type": "AdamW"}}


def test_a_chain_and_several_bases_are_followed_from_where_each_file_is(tmp_path):
    (tmp_path / "deep").mkdir()
    files(tmp_path / "deep", b={"_base_": "../c.yml", "second": "b"})
    file = files(
        tmp_path,
        a={"_base_": ["deep/b.yml", "d.yml"], "first": "a"},
        c={"third": "c", "second": "c"},
        d={"first": "d", "second": "d", "fourth": "d"},
    )
    assert read(file).values == {"first": "a", "second": "b", "third": "c", "fourth": "d"}


def test_anchors_are_followed(tmp_path):
    file = files(tmp_path, a="one: &head {type: X}\ntwo: *head\n")
    assert read(file).values == {"one": {"type": "X"}, "two": {"type": "X"}}


@pytest.mark.parametrize(
    ("contents", "words"),
    {
        "missing base": ({"a": {"_base_": "b.yml"}}, "a.yml: _base_={0}/b.yml: cannot be read (No such file"),
        "itself": ({"a": {"_base_": "a.yml"}}, "a.yml: _base_ comes back to itself: {0}/a.yml -> {0}/a.yml"),
        "circle": (
            {"a": {"_base_": "b.yml"}, "b": {"_base_": "./a.yml"}},
            "a.yml: _base_ comes back to itself: {0}/a.yml -> {0}/b.yml -> {0}/a.yml",
        ),
        "no YAML": ({"a": "iters: [1, 2\nmodel: {"}, "a.yml: is no valid YAML: "),
        "no keys": ({"a": "- 1\n- 2\n"}, "a.yml: should hold keys and values"),
        "nothing": ({"a": ""}, "a.yml: should hold keys and values"),
    }.values(),
)
def test_a_file_that_cannot_be_read_is_named_in_one_line(tmp_path, contents, words):
    with pytest.raises(UserError) as refusal:
        read(files(tmp_path, **contents))
    assert words.format(tmp_path) in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["none.yml", "folder.yml", "config.json"])
def test_what_is_no_yaml_file_is_named(tmp_path, name):
    (tmp_path / "folder.yml").mkdir()
    with pytest.raises(UserError, match=name):
        read(str(tmp_path / name))
