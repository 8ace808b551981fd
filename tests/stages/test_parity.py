"""What is said of an int8 file that is worse than it should be."""

import importlib
import logging

import pytest

parity = importlib.import_module("segslim.stages.parity")  # the package has the stage by this name


@pytest.mark.parametrize(
    ("target", "remedy"), [("vnni", "export.target=any"), ("any", "leave it out of engine.candidates")]
)
def test_kernels_that_differ_from_the_file_are_named_with_the_processor_and_a_remedy(
    monkeypatch, caplog, target, remedy
):
    monkeypatch.setattr(parity, "instruction_set", lambda: "avx2")
    with caplog.at_level(logging.WARNING, "segslim"):
        parity._warn_of_kernels("mIoU", {"onnxruntime": 0.9107, "openvino": 0.8961}, 0.9108, target)
    (said,) = caplog.messages
    assert all(word in said for word in ("openvino", "avx2", target, "0.8961", "0.9108", remedy))
