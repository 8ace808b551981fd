"""What retrain does with fake-quantize layers: it trains with them, and judges the int8 file that would be deployed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segslim.config import Config
from segslim.data import Pair
from segslim.deployment.engines import open_session
from segslim.networks.checkpoint import Checkpoint
from segslim.networks.network import weights_of
from segslim.quantization.spec import QuantizationSpec
from segslim.stages.shared.graphs import float_graph
from segslim.stages.shared.images import batches
from segslim.stages.shared.sessions import score, threads


@dataclass(frozen=True)
class QuantizedNetwork:
    """A network with fake-quantize layers. `plain` takes its weights; `graph` is the float ONNX graph."""

    network: Any
    plain: Any
    spec: QuantizationSpec
    graph: Any
    config: Config
    folder: Path

    @staticmethod
    def from_checkpoint(checkpoint: Checkpoint, config: Config, folder: Path) -> "QuantizedNetwork":
        """Of a checkpoint whose quantization is to be trained; writes files into `folder`."""
        from segslim.quantization.qat import fake_quantize, fuse_conv_bn

        spec = checkpoint.quantization
        assert spec is not None  # it is what is trained here
        plain, network = checkpoint.network(), checkpoint.network()
        graph = float_graph(plain, config, folder)
        if spec.fake_quantize["fuse_conv_bn"]:
            fuse_conv_bn(network, graph)
        return QuantizedNetwork(fake_quantize(network, spec, graph), plain, spec, graph, config, folder)

    def learned(self) -> QuantizationSpec:
        """The spec that follows from what the layers have learned until now."""
        from segslim.quantization.qat import learned

        return learned(self.network, self.spec, self.graph)

    def float_network(self) -> Any:
        """The network without the layers, with the weights of now."""
        from segslim.quantization.qat import plain_name

        now = {plain_name(name): array for name, array in weights_of(self.network).items()}
        for name, tensor in self.plain.state_dict().items():
            tensor.set_value(now[name])
        return self.plain

    def miou(self, network: Any, pairs: Sequence[Pair]) -> float:
        """Of the int8 file that would be deployed now, not of the simulation."""
        import onnx

        from segslim.quantization.qdq import quantize

        model = float_graph(self.float_network(), self.config, self.folder)
        quantize(model, self.learned())
        file = self.folder / "validation.onnx"
        onnx.save(model, file)
        session = open_session("onnxruntime", file, threads=threads(self.config))
        return score(session, self.config, batches(self.config, pairs)).miou
