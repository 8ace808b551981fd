"""Which engines are tried, and which come first."""

import dataclasses

from segslim.deployment.deployment import Deployment
from segslim.stages.shared.sessions import ranked_engines
from tests.command import config
from tests.deployment.small_onnx import random_images, write_onnx

SLOW = """
from segslim.deployment.engines import open_session as opened

class Slow:
    def __init__(self, session):
        self.session, self.input_names = session, session.input_names

    def run(self, inputs):
        for _ in range(20):
            outputs = self.session.run(inputs)
        return outputs

    def describe(self):
        return self.session.describe()

def open_session(deployment, *, threads, precision, device):
    return Slow(opened("onnxruntime", deployment, threads=threads))
"""


def test_an_engine_that_was_hopeless_for_the_dense_network_is_not_tried_for_another(tmp_path, monkeypatch):
    (tmp_path / "slow_engine.py").write_text(SLOW, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    write_onnx(tmp_path / "net.onnx")
    deployment, slow = Deployment.from_onnx(tmp_path / "net.onnx"), "slow_engine:open_session"
    options = config(f"engine.candidates=[{slow},onnxruntime]", "engine.threads=1")
    dense = ranked_engines(deployment, random_images(), options, settle=0.0)
    assert [choice.candidate.engine for choice in dense] == ["onnxruntime", slow]
    assert all(choice.excluded is None for choice in dense)
    given = {"engine": "onnxruntime", "precision": "float32", "candidates": list(map(dataclasses.asdict, dense))}
    tried, not_tried = ranked_engines(deployment, random_images(), options, given, settle=0.0)
    assert tried.candidate.engine == "onnxruntime" and tried.excluded is None
    assert not_tried.candidate.engine == slow and "times as long" in str(not_tried.excluded)
    assert not_tried.latency_ms is None and not_tried.session is None
