"""Weights that keep int8 kernels exact on x86 processors without VNNI.

There VPMADDUBSW multiplies unsigned by signed bytes and adds the products in pairs, in 16 bits, where they saturate:
255 * (127 + 127) is twice as much as fits. Two weights that add up to at most MOST_IN_A_PAIR never do, whatever the
activations are: 255 * 128 <= 32767. Their scale is therefore that of the largest pair, not of the largest weight; it
costs less than one of the eight bits. ONNX Runtime's documentation calls a whole bit less "reduce_range", NNCF's
"overflow_fix".

Which weights meet in a pair was seen on the engines themselves, with weights at their extremes: in ONNX Runtime 1.32
(MLAS) and in OpenVINO 2026.4 (oneDNN) they are neighbours of one output channel. Depthwise convolutions of both
multiply in 32 bits.
"""

import numpy as np
from onnx import NodeProto

from segslim.onnx_tools import attribute
from segslim.quantization.spec import SATURATING

MOST_IN_A_PAIR = 128


def largest_pairs(node: NodeProto, weight: np.ndarray, target: str) -> np.ndarray:
    """The largest sum of two weights of one sign that a kernel adds, of each output channel; not less than its largest
    weight. For the target "any" those of every two weights of a channel, since other engines may pair others.
    """
    if target not in SATURATING or (target == "avx2" and _is_depthwise(node, weight)):
        return _by_channel(node, np.abs(weight)).max(axis=(1, 2))
    rows = _by_channel(node, weight)
    both_signs = np.stack([np.maximum(rows, 0), np.maximum(-rows, 0)])
    flat = both_signs.reshape(2, len(rows), -1)  # MLAS: position by position, the inputs of each
    if target == "any":
        return np.sort(flat)[..., -2:].sum(-1).max(0)
    # oneDNN: pairs of inputs of one position; of an even number of inputs these are the same pairs
    return np.maximum(_pair_sums(flat).max(axis=(0, 2)), _pair_sums(both_signs).max(axis=(0, 2, 3)))


def _pair_sums(values: np.ndarray) -> np.ndarray:
    even = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, values.shape[-1] % 2)])
    return even[..., ::2] + even[..., 1::2]


def _by_channel(node: NodeProto, weight: np.ndarray) -> np.ndarray:
    """Output channels x positions of the kernel x inputs."""
    if node.op_type == "ConvTranspose":
        weight = weight.swapaxes(0, 1)  # a group's inputs are neighbours
    elif node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0)):
        weight = weight.reshape(-1, *weight.shape[-2:]).swapaxes(-1, -2)
        return weight.reshape(-1, 1, weight.shape[-1])
    return weight.reshape(*weight.shape[:2], -1).swapaxes(1, 2)


def _is_depthwise(node: NodeProto, weight: np.ndarray) -> bool:
    return node.op_type == "Conv" and weight.shape[1] == 1 and attribute(node, "group", 1) == len(weight)
