import json
from dataclasses import asdict

import pytest

from segslim.deployment.engines import open_session
from segslim.deployment.engines import Candidate, select
from segslim.errors import UserError
from segslim.evaluation import measure
from tests.engines.deployments import random_images, write_onnx

INPUTS = {"x": random_images()}


@pytest.fixture(scope="module", params=["logits", "argmax"])
def deployment(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    write_onnx(folder / "model.onnx", request.param)
    return folder


@pytest.fixture
def reference(deployment):
    return open_session("onnxruntime", deployment, threads=1).run(INPUTS)[0]


def timing(runs):
    return {name: latency.median for name, latency in measure(runs, 1, 3, settle=0).items()}


def test_agreeing_engines_come_fastest_first_and_the_others_after_with_their_reasons(deployment, reference) -> None:
    candidates = [Candidate("paddle"), Candidate("openvino"), Candidate("nonesuch"), Candidate("onnxruntime")]
    choices = select(deployment, candidates, threads=1, inputs=INPUTS, reference=reference, timing=timing)
    agreeing, excluded = choices[:2], choices[2:]
    assert {choice.candidate.engine for choice in agreeing} == {"openvino", "onnxruntime"}
    assert 0 < agreeing[0].latency_ms <= agreeing[1].latency_ms
    assert all(choice.excluded is None and choice.session["threads"] == 1 for choice in agreeing)
    assert {choice.candidate.engine: choice.excluded for choice in excluded}.keys() == {"paddle", "nonesuch"}
    assert "holds no model.json" in excluded[0].excluded and "unknown" in excluded[1].excluded
    json.dumps([asdict(choice) for choice in choices])


def test_engine_that_computes_something_else_is_excluded(deployment, reference) -> None:
    other = reference.copy()
    other.flat[::100] += 1
    with pytest.raises(
        UserError, match=r"onnxruntime: (only 9\d\.\d+% of the pixels|differs by .* of the largest value)"
    ):
        select(deployment, [Candidate("onnxruntime")], threads=1, inputs=INPUTS, reference=other, timing=timing)


def test_output_of_another_shape_is_excluded(deployment, reference) -> None:
    with pytest.raises(UserError, match="output of shape"):
        select(
            deployment,
            [Candidate("onnxruntime")],
            threads=1,
            inputs=INPUTS,
            reference=reference[..., :-1],
            timing=timing,
        )


def test_none_of_no_candidates_is_an_error(deployment, reference) -> None:
    with pytest.raises(UserError, match="none was given"):
        select(deployment, [], threads=1, inputs=INPUTS, reference=reference, timing=timing)
