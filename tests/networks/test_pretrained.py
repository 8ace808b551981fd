"""Weights that a config names as `pretrained`: found, fetched, in the fingerprint, and loaded as far as they fit."""

import http.server
import logging
import threading

import numpy as np
import pytest

from segslim.errors import UserError
from segslim.networks.network import build_network, weights_of
from segslim.networks.pretrained import digests, local_weights
from segslim.networks.weight_files import write_pdparams

BACKBONE = {"_target_": "paddleseg.models.VisionTransformer", "img_size": 32, "embed_dim": 16, "depth": 1}
BACKBONE |= {"num_heads": 2, "pretrained": None}


def segmenter(**backbone):
    return {"_target_": "paddleseg.models.LinearSegmenter", "num_classes": 3, "backbone": {**BACKBONE, **backbone}}


@pytest.fixture(scope="module")
def weights():
    return {
        name.removeprefix("backbone."): array
        for name, array in weights_of(build_network(segmenter(), seed=1)).items()
        if name.startswith("backbone.")
    }


class OneFile(http.server.BaseHTTPRequestHandler):
    """Serves `content`, the first time only half of it; from where it is asked for."""

    content = b""
    asked: list[str | None] = []

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        self.wfile.write(self.content[start:] if wanted else self.content[: len(self.content) // 2])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    OneFile.asked.clear()
    with http.server.HTTPServer(("127.0.0.1", 0), OneFile) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_a_download_goes_on_where_it_broke_off_and_is_made_once(tmp_path, server, weights):
    write_pdparams(tmp_path / "served.pdparams", weights)
    OneFile.content = (tmp_path / "served.pdparams").read_bytes()
    model = segmenter(pretrained=f"{server}/vit_small/model.pdparams")

    with pytest.raises(
        UserError, match=r"model\.network\.backbone\.pretrained=http://.*run it again, which goes on from there"
    ):
        local_weights(model, tmp_path)
    found = [local_weights(model, tmp_path)["backbone"]["pretrained"] for _ in range(2)]

    assert OneFile.asked == [None, f"bytes={len(OneFile.content) // 2}-"]
    assert found[0] == found[1]
    assert (tmp_path / "pretrained" / found[0]).read_bytes() == OneFile.content


def test_without_a_network_the_place_for_the_file_is_named_and_taken(tmp_path, weights):
    model = segmenter(pretrained="http://127.0.0.1:9/vit_small/model.pdparams")
    with pytest.raises(UserError, match="cannot be downloaded") as refused:
        digests(model, tmp_path)
    place = str(refused.value).partition("put the weights at ")[2].partition(",")[0]
    write_pdparams(place, weights)
    assert set(digests(model, tmp_path)) == {"model.network.backbone.pretrained"}


def test_weights_reach_the_backbone_and_the_others_are_counted(tmp_path, weights, caplog):
    given = {name: array + 1 for name, array in weights.items() if "norm" not in name}
    write_pdparams(tmp_path / "given.pdparams", given)

    with caplog.at_level(logging.INFO, logger="segslim"):
        network = build_network(segmenter(pretrained=str(tmp_path / "given.pdparams")), seed=1)

    loaded = weights_of(network)
    assert all(np.array_equal(loaded[f"backbone.{name}"], array) for name, array in given.items())
    missing = len(weights) - len(given)
    assert f"{len(given)} of the {len(weights)} weights" in caplog.text
    assert caplog.text.count("is not in the file") == missing > 0


def test_positions_of_another_image_size_are_resized(tmp_path, weights):
    write_pdparams(tmp_path / "given.pdparams", weights)
    network = build_network(segmenter(pretrained=str(tmp_path / "given.pdparams"), img_size=64), seed=2)
    assert np.array_equal(network.backbone.pos_embed.numpy()[:, 0], weights["pos_embed"][:, 0])
    assert network.backbone.pos_embed.shape[1] == 17


def test_the_content_of_a_file_counts_wherever_it_stands(tmp_path, weights):
    file = tmp_path / "given.pdparams"
    write_pdparams(file, weights)
    before = digests(segmenter(pretrained=str(file)), tmp_path)
    write_pdparams(file, {name: array + 1 for name, array in weights.items()})
    assert digests(segmenter(pretrained=str(file)), tmp_path) != before
    in_a_list = digests({"parts": [segmenter(pretrained=str(file))]}, tmp_path)
    assert list(in_a_list) == ["model.network.parts[0].backbone.pretrained"]
    with pytest.raises(UserError, match=r"model\.network\.backbone\.pretrained=.*there is no such file"):
        digests(segmenter(pretrained="nowhere.pdparams"), tmp_path)
