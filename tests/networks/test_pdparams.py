import math
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segslim.errors import UserError
from segslim.networks.network import build_network, weights_of
from segslim.networks.weight_files import read_pdparams, write_pdparams
from segslim.paddle_compat import import_paddle
from tests.networks.test_hostile_weights import Forged

paddle = import_paddle()
TOY = {"_target_": "tests.training.toy.ToyNetwork"}


def _same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and np.array_equal(left[name], right[name]) for name in left
    )


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize(
    "model", [TOY, {"_target_": "paddleseg.models.FastSCNN", "num_classes": 2}], ids=["toy", "fast"]
)
def test_what_paddle_saves_is_read(tmp_path: Path, protocol: int, model: dict) -> None:
    network = build_network(model)
    paddle.save(network.state_dict(), str(tmp_path / "a.pdparams"), protocol=protocol)
    assert _same(read_pdparams(tmp_path / "a.pdparams"), weights_of(network))


def test_what_is_written_is_loaded_by_paddle(tmp_path: Path) -> None:
    network, other = build_network(TOY, seed=1), build_network(TOY, seed=2)
    write_pdparams(tmp_path / "a.pdparams", weights_of(network))
    loaded = paddle.load(str(tmp_path / "a.pdparams"))
    assert other.set_state_dict(loaded) == ([], [])
    assert _same(weights_of(other), weights_of(network))
    assert _same(read_pdparams(tmp_path / "a.pdparams"), weights_of(network))


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_arrays_of_numpy_1_and_2_are_both_read(tmp_path: Path, module: str, protocol: int) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    own = np.array(0).__reduce__()[0].__module__
    content = pickle.dumps(OrderedDict(a=array), protocol=protocol)
    if protocol == 2:
        content = content.replace(f"c{own}\n".encode(), f"c{module}\n".encode())
    else:
        content = content.replace(_short(own), _short(module))
    # a frame tells its own length: without it the pickle is as valid
    (tmp_path / "a.pdparams").write_bytes(_without_frame(content))
    assert _same(read_pdparams(tmp_path / "a.pdparams"), {"a": array})


def _short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def _without_frame(content: bytes) -> bytes:
    return content[:2] + content[11:] if content[2:3] == b"\x95" else content


def test_state_of_a_dtype_cannot_turn_numbers_into_pointers(tmp_path: Path) -> None:
    """numpy itself believes the flags (63: those of an array of objects) and follows the bytes as addresses."""
    rebuild, arguments, state = np.full(4, 1e300).__reduce__()
    dtype = Forged(np.dtype, ("f8", False, True), (3, "<", None, None, None, -1, -1, 63))
    forged = Forged(rebuild, arguments, (state[0], state[1], dtype, *state[3:]))
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps({"weight": forged}))
    (array,) = read_pdparams(tmp_path / "a.pdparams").values()
    assert array.dtype == np.float64 and not array.dtype.hasobject and array.tolist() == [1e300] * 4


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">f4").reshape(2, 3),
        np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
        np.array(7),
        np.zeros((0, 3), np.float16),
        np.array([True, False]),
    ],
    ids=["big endian", "Fortran order", "scalar", "empty", "bool"],
)
def test_arrays_of_any_layout_are_read(tmp_path: Path, array: np.ndarray) -> None:
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps({"weight": array}, protocol=2))
    read = read_pdparams(tmp_path / "a.pdparams")["weight"]
    assert read.shape == array.shape and read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


def test_an_array_that_paddle_cut_into_slices_is_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does by the protocols 2 and 3 above a gigabyte; here above 64 bytes."""
    from paddle.framework import io_utils

    monkeypatch.setattr(io_utils, "int", lambda number: min(math.floor(number), 16), raising=False)
    weights = {"weight": np.arange(120, dtype=np.float32).reshape(2, 3, 20), "bias": np.zeros(2, np.float32)}
    cut = io_utils._unpack_saved_dict(dict(weights), 2)
    assert "weight" not in cut and len(cut) == 10
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(cut, protocol=2))
    assert _same(read_pdparams(tmp_path / "a.pdparams"), weights)


@pytest.mark.parametrize("kept", [0, 1, 30, -1, -200])
def test_torn_file_is_told(tmp_path: Path, kept: int) -> None:
    write_pdparams(tmp_path / "a.pdparams", {"weight": np.zeros((4, 4), np.float32)})
    (tmp_path / "a.pdparams").write_bytes((tmp_path / "a.pdparams").read_bytes()[:kept])
    with pytest.raises(UserError, match=r"a\.pdparams: is not a whole \.pdparams file"):
        read_pdparams(tmp_path / "a.pdparams")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([np.zeros(2)], "holds a list"),
        ({"model": {"w": np.zeros(2)}}, "holds a dict for 'model'"),
        ({"epoch": 3}, "int for"),
    ],
)
def test_other_things_than_weights_are_told(tmp_path: Path, content: Any, told: str) -> None:
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=told):
        read_pdparams(tmp_path / "a.pdparams")


def test_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read \(No such file"):
        read_pdparams(tmp_path / "a.pdparams")
