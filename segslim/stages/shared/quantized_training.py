"""What retrain does with fake-quantize layers: it trains with them, and judges the int8 file that would be deployed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from segslim.config import Config
from segslim.data import Pair
from segslim.deployment.engines import open_session
from segslim.networks.checkpoint import load_checkpoint
from segslim.networks.weights import weights_of
from segslim.quantization.fuse import fuse_conv_bn
from segslim.quantization.qat import fake_quantize, learned, plain_name
from segslim.quantization.qdq import quantize
from segslim.quantization.table import Table
from segslim.stages.shared.graphs import float_graph
from segslim.stages.shared.sessions import threads
from segslim.stages.shared.validation import batches, score


@dataclass(frozen=True)
class Quantizing:
    """`network` has the fake-quantize layers, `plain` takes its weights; `graph` is the float ONNX graph."""

    network: Any
    plain: Any
    table: Table
    graph: onnx.ModelProto
    config: Config
    folder: Path

    @staticmethod
    def of(checkpoint: Path, table: Table, config: Config, folder: Path) -> "Quantizing":
        plain, network = (load_checkpoint(checkpoint).network for _ in range(2))
        graph = float_graph(plain, config, folder)
        if table.training["fuse_conv_bn"]:
            fuse_conv_bn(network, graph)
        return Quantizing(fake_quantize(network, table, graph), plain, table, graph, config, folder)

    def learned(self) -> Table:
        """The table that follows from what the layers have learned until now."""
        return learned(self.network, self.table, self.graph)

    def float_network(self) -> Any:
        """The network without the layers, with the weights of now."""
        now = {plain_name(name): array for name, array in weights_of(self.network).items()}
        for name, tensor in self.plain.state_dict().items():
            tensor.set_value(now[name])
        return self.plain

    def miou(self, network: Any, pairs: Sequence[Pair]) -> float:
        """Of the int8 file that would be deployed now, not of the simulation."""
        model = float_graph(self.float_network(), self.config, self.folder)
        quantize(model, self.learned())
        file = self.folder / "validation.onnx"
        onnx.save(model, file)
        session = open_session("onnxruntime", file, threads=threads(self.config))
        return score(session, self.config, batches(self.config, pairs)).miou
