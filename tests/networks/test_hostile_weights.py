"""Files of weights made to run code, or to take all memory or time: refused in one line, in little of both."""

import copyreg
import io
import itertools
import json
import os
import pickle
import pickletools
import random
import resource
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from segslim.errors import UserError
from segslim.networks.weight_files import read_pdparams, read_safetensors
from tests.command import ROOT

RAN = "open('ran', 'w')"


class Forged:
    """What a pickle of it says that it is made by: a function, its arguments, and maybe a state."""

    def __init__(self, *reduced):
        self._reduced = reduced

    def __reduce__(self):
        return self._reduced


def call(function, *arguments) -> Forged:
    return Forged(function, arguments)


class _Persistent(pickle.Pickler):
    def persistent_id(self, value):
        return "id" if isinstance(value, Forged) else None


def persistent(protocol: int) -> bytes:
    stream = io.BytesIO()
    _Persistent(stream, protocol).dump({"weight": call(eval, RAN)})
    return stream.getvalue()


def extension() -> bytes:
    """EXT1: a number that stands for a name in copyreg's table."""
    copyreg.add_extension("builtins", "eval", 240)
    try:
        return pickle.dumps({"weight": call(eval, RAN)}, protocol=2)
    finally:
        copyreg.remove_extension("builtins", "eval", 240)


def nested_in_an_array() -> bytes:
    rebuild, arguments, state = np.zeros(2, np.float32).__reduce__()
    return pickle.dumps({"weight": call(rebuild, *arguments[:2], call(eval, RAN)), "state": state})


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


EXPLOITS = {
    "REDUCE": pickle.dumps({"weight": call(eval, RAN)}),
    "getattr": pickle.dumps({"weight": call(getattr, "a", "upper")}),
    "numpy.load": pickle.dumps({"weight": call(np.load, "ran")}),
    "a path": pickle.dumps({"weight": Path("a")}),
    "an array of texts": pickle.dumps({"weight": np.array(["text"])}),
    "GLOBAL, protocol 0": b"cbuiltins\neval\n(V" + RAN.encode() + b"\ntR.",
    "GLOBAL of a submodule": b"\x80\x02cnumpy\nload\n.",
    "STACK_GLOBAL": b"\x80\x04" + short("os") + short("system") + b"\x93" + short("touch ran") + b"\x85R.",
    "STACK_GLOBAL by a dotted name": b"\x80\x04" + short("numpy") + short("ndarray.tofile") + b"\x93.",
    "STACK_GLOBAL of a list": b"\x80\x04]" + short("eval") + b"\x93.",
    "INST": b"(V" + RAN.encode() + b"\nibuiltins\neval\n.",
    "OBJ": b"(cbuiltins\neval\nV" + RAN.encode() + b"\no.",
    "NEWOBJ": b"\x80\x02cbuiltins\neval\n)\x81.",
    "NEWOBJ_EX": b"\x80\x04" + short("builtins") + short("eval") + b"\x93)}\x92.",
    "BUILD of a dict": b"\x80\x02}}b.",
    "BUILD of a stand-in": b"\x80\x02cnumpy\ndtype\n}b.",
    "EXT1": extension(),
    "PERSID": persistent(0),
    "BINPERSID": persistent(2),
    "a call of what a call gave": b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85R)R.",
    "nested in an array": nested_in_an_array(),
    "an array of objects": pickle.dumps({"weight": np.array([call(eval, RAN)], dtype=object)}),
    "the state of an array": pickle.dumps({"weight": call(np.ndarray.__setstate__, np.zeros(1), call(eval, RAN))}),
    "DUP": b"\x80\x02]2a.",
    "a buffer from outside": b"\x80\x05\x97.",
    "a key that is no text": b"\x80\x02}K\x01K\x02s.",
}


@pytest.mark.parametrize("payload", EXPLOITS.values(), ids=EXPLOITS)
def test_a_payload_is_refused_and_not_run(tmp_path, monkeypatch, payload):
    monkeypatch.chdir(tmp_path)
    Path("a.pdparams").write_bytes(payload)
    with pytest.raises(UserError, match=r"a\.pdparams: (names .* was not run|is not a whole)") as error:
        read_pdparams("a.pdparams")
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    assert not Path("ran").exists()


def test_the_payloads_are_real(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("REDUCE", "GLOBAL, protocol 0", "STACK_GLOBAL", "INST", "OBJ"):
        pickle.loads(EXPLOITS[name])
        assert Path("ran").exists(), name
        Path("ran").unlink()


def tuples_of_tuples() -> bytes:
    """A key of 2 ** 200 elements in 600 bytes."""
    twice = b"".join(b"q%ch%c\x86" % (level, level) for level in range(200))
    return b"\x80\x02})" + twice + b"K\x00s."


def bytes_encoded_often() -> bytes:
    """A text of a megabyte that becomes bytes 20,000 times over."""
    text = b"X" + struct.pack("<I", 1 << 20) + bytes(1 << 20)
    encode = b"c_codecs\nencode\nq\x0a" + text + b"q\x0bX\x06\x00\x00\x00latin1q\x0c"
    return b"\x80\x02(" + encode + b"h\x0ah\x0bh\x0c\x86R" * 20_000 + b"t."


def nested_by_the_memo(end: bytes) -> bytes:
    """A tuple of 2 ** 60 elements where a name, an argument or a state should be: whoever writes it out never ends."""
    return b"\x80\x04" + end.replace(b"NESTED", b")" + b"q\x01h\x01\x86" * 60)


def text_of(length: int) -> bytes:
    return b"X" + struct.pack("<I", length) + b"a" * length


def encoded_by_bytes(encoding: bytes) -> bytes:
    """bytes(text, encoding), again and again: `__builtin__.bytes` is for no bytes at all."""
    again = b"c__builtin__\nbytes\nh\x01h\x02\x86R" * 20_000
    return b"\x80\x04" + text_of(1 << 20) + b"q\x01" + short(encoding.decode()) + b"q\x02(" + again + b"t."


def forged_state(*state: object) -> bytes:
    function, arguments, _ = np.zeros(4, np.float32).__reduce__()
    return pickle.dumps({"a": Forged(function, arguments, state)}, protocol=4)


def slices_of_the_same_bytes() -> bytes:
    """An array of 20,000 slices of a megabyte, which are one."""
    array = np.zeros(1 << 20, np.uint8)
    parts = {f"a@@.{at}": array for at in range(20_000)}
    return pickle.dumps({**parts, "UnpackBigParamInfor@@": {"a": {"OriginShape": (20_000 << 20,), "slices": [*parts]}}})


def arrays_on_the_same_bytes() -> bytes:
    """20,000 arrays of a megabyte each, which share it: 20 GB if they were copies."""
    function, arguments, (version, shape, dtype, fortran, content) = np.zeros(1 << 20, np.uint8).__reduce__()
    state = (version, shape, dtype, fortran, content)
    return pickle.dumps({str(at): Forged(function, arguments, state) for at in range(20_000)}, protocol=4)


sliced = short("UnpackBigParamInfor@@")
function, (kind, _, code), state = np.zeros(2, np.float32).__reduce__()
huge = Forged(function, (kind, (10**15,), code), (state[0], (10**15,), *state[2:]))
BOMBS = {
    "shape": pickle.dumps({"weight": huge}),
    "memo": b"\x80\x02K\x00r" + struct.pack("<I", 2**31 - 1) + b".",
    "key": tuples_of_tuples(),
    "encoded": bytes_encoded_often(),
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"abc.",
    "text": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"abc.",
    "lists": b"\x80\x02" + b"]" * 1_200_000 + b".",
    "marks": b"\x80\x02" + b"(" * 1_200_000 + b".",
    "name": nested_by_the_memo(b"NESTED" + short("x") + b"\x93."),
    "module": nested_by_the_memo(short("x") + b"NESTED\x93."),
    "type": nested_by_the_memo(b"cnumpy\ndtype\nNESTED\x85R."),
    "byte-order": nested_by_the_memo(b"cnumpy\ndtype\n" + short("f4") + b"\x85RK\x03NESTED\x86b."),
    "slice": nested_by_the_memo(b"}" + sliced + b"}" + short("a") + b"}" + short("slices") + b"]NESTEDasss."),
    "tuple": nested_by_the_memo(b"}" + short("a") + b"NESTEDs."),
    "punycode": encoded_by_bytes(b"punycode"),
    "utf-32": encoded_by_bytes(b"utf-32"),
    "slices": slices_of_the_same_bytes(),
    "memory-that-was-not-written": forged_state(1, (1 << 24,), np.dtype("f4"), False, None),
    "memory-by-its-length": b"\x80\x04cbuiltins\nbytes\nJ" + struct.pack("<i", 1 << 26) + b"\x85R.",
    "bytes-for-fewer-numbers": forged_state(1, (2,), np.dtype("f4"), False, bytes(64)),
    "axes": forged_state(1, (1,) * 1000, np.dtype("u1"), False, b"a"),
    "no-state": pickle.dumps({"a": Forged(np.zeros(1).__reduce__()[0], (np.ndarray, (1 << 20,), b"b"))}),
}
ONE_TENSOR = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def tensors(header: object, content: bytes = bytes(8), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + content


def lying(**change: object) -> bytes:
    return tensors({"a": {**ONE_TENSOR["a"], **change}})


LIARS = {
    "length of the header": tensors(ONE_TENSOR, length=1 << 62),
    "length within the file": tensors(ONE_TENSOR, length=20),
    "no header": b"",
    "no JSON": tensors(b"{" * 100),
    "nested": tensors(b"[" * 100_000),
    "offsets beyond": lying(data_offsets=[0, 1 << 40]),
    "offsets reversed": lying(data_offsets=[8, 0]),
    "negative offsets": lying(data_offsets=[-8, 8]),
    "shape beyond": lying(shape=[1 << 40]),
    "shape that overflows": lying(shape=[1 << 33, 1 << 33]),
    "negative shape": lying(shape=[-2]),
    "type": lying(dtype="OBJECT"),
    "holes": tensors({"a": {**ONE_TENSOR["a"], "data_offsets": [8, 16]}}, bytes(16)),
    "overlap": tensors({**ONE_TENSOR, "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, bytes(12)),
    "too long": tensors(ONE_TENSOR, bytes(64)),
}

READ_ALL = """
import sys
import time
from collections import Counter
from pathlib import Path
from segslim.errors import UserError
from segslim.networks.weight_files import read_pdparams
for file in sorted(Path().glob("*.pdparams")):
    try:
        print(file.stem, "read", len(read_pdparams(file)))
    except UserError as error:
        print(file.stem, "refused", str(error)[:200])
"""


def small() -> None:
    """A gigabyte of address space, of which Python and numpy take half, and a minute."""
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))


def test_bombs_end_in_an_error_within_a_gigabyte_and_a_minute(tmp_path):
    for name, bomb in BOMBS.items():
        (tmp_path / f"{name}.pdparams").write_bytes(bomb)
    (tmp_path / "shared.pdparams").write_bytes(arrays_on_the_same_bytes())
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL],
        cwd=tmp_path, env=environment, preexec_fn=small, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    answers = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert answers.pop("shared") == "read 20000"
    assert answers.keys() == BOMBS.keys()
    assert not {name: answer for name, answer in answers.items() if not answer.startswith("refused")}


def pickles() -> list[bytes]:
    """As Paddle writes them: arrays by name, and tensors as (name, array), by each protocol."""
    weights = {"conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2), "bn.mean": np.zeros(3, np.float16)}
    tensors = {name: call(tuple, (name, array)) for name, array in weights.items()}
    names = {"StructuredToParameterName@@": {name: f"conv2d_{name}" for name in weights}}
    return [pickle.dumps({**state, **names}, protocol) for protocol in (2, 3, 4) for state in (weights, tensors)]


def mutated(generator: random.Random, files: list[bytes]) -> bytes:
    """A file with some of its instructions dropped, repeated, swapped, taken from another or from an attack, and some
    of its bytes changed.
    """

    def instructions(file: bytes) -> list[bytes]:
        try:
            at = [position for _, _, position in pickletools.genops(file)]
        except ValueError:
            return [file]
        return [file[begin:end] for begin, end in itertools.pairwise([*at, len(file)])]

    parts = instructions(generator.choice(files))
    others = instructions(generator.choice([*files, *EXPLOITS.values()]))
    for _ in range(generator.randrange(4)):
        at = generator.randrange(len(parts))
        change = generator.randrange(5)
        if change == 0:
            del parts[at]
        elif change == 1:
            parts[at:at] = [parts[at]] * generator.choice([1, 2, 1000])
        elif change == 2:
            parts[at], parts[0] = parts[0], parts[at]
        else:
            begin = generator.randrange(len(others))
            parts[at : at + generator.randrange(2)] = others[begin : begin + generator.randrange(1, 9)]
        parts = parts or [b"."]
    content = bytearray(b"".join(parts))
    for _ in range(generator.choice([0, 0, 1, 3])):
        content[generator.randrange(len(content))] = generator.randrange(256)
    return bytes(content)


def fuzz(count: int, seed: int, folder: Path) -> Counter[str]:
    """How many of `count` mutations were read and how many refused; fails where anything else happens."""
    generator, files, outcomes = random.Random(seed), pickles(), Counter[str]()
    for _ in range(count):
        (folder / "a.pdparams").write_bytes(mutated(generator, files))
        begun = time.monotonic()
        try:
            read = read_pdparams(folder / "a.pdparams")
            assert all(isinstance(array, np.ndarray) for array in read.values())
            outcomes["read"] += 1
        except UserError as error:
            outcomes["torn" if "is not a whole" in str(error) else "refused"] += 1
        assert time.monotonic() - begun < 10
    return outcomes


def test_no_mutation_of_a_real_file_does_anything_but_be_read_or_refused(tmp_path, random_seed):
    found = []
    armed = True
    sys.addaudithook(lambda event, _: found.append(event) if armed and event == "pickle.find_class" else None)
    outcomes = fuzz(500, random_seed, tmp_path)
    armed = False
    assert not found and all(outcomes[kind] > 25 for kind in ("read", "torn", "refused")), outcomes


@pytest.mark.parametrize("content", LIARS.values(), ids=LIARS)
def test_a_safetensors_header_that_lies_is_one_line(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.safetensors: cannot be read as safetensors") as error:
        read_safetensors(tmp_path / "a.safetensors")
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_the_file_without_a_lie_is_read(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(tensors(ONE_TENSOR))
    assert read_safetensors(tmp_path / "a.safetensors")["a"].tolist() == [0, 0]
