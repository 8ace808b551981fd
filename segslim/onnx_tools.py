"""What every room that handles ONNX graphs needs: a session, nodes put in, attributes read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime

if TYPE_CHECKING:  # a session needs ONNX Runtime alone: on a board there is no more
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

_ERRORS_ONLY = 3


def session_of(
    model: "ModelProto | Path",
    threads: int,
    optimized: bool = True,
    provider: str = "CPUExecutionProvider",
    profile: Path | None = None,
) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session, which gives the same numbers for the same number of threads (0: one for each core).

    Not `optimized`: each node by itself, as the file has it. `profile`: how the name of the file begins in which
    `end_profiling` writes what each node took.
    """
    options = onnxruntime.SessionOptions()
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # threads that spin between two runs would slow down whatever else is measured in turn with this session
    options.add_session_config_entry("session.force_spinning_stop", "1")
    content = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=[provider])


def insert_nodes(graph: "GraphProto", added: "Mapping[str, Sequence[NodeProto]]") -> None:
    """Puts nodes right behind the one that makes the tensor by which they are listed, those of inputs first: nodes of
    ONNX must be in order.
    """
    made = {name for node in graph.node for name in node.output}
    ordered = [node for name, nodes in added.items() if name not in made for node in nodes]
    for node in graph.node:
        ordered += [node, *(new for name in node.output for new in added.get(name, ()))]
    copies = [type(node).FromString(node.SerializeToString()) for node in ordered]  # deleting would free them
    del graph.node[:]
    graph.node.extend(copies)


def copied(model: "ModelProto") -> "ModelProto":
    """Another model with the same content, weights included."""
    return type(model).FromString(model.SerializeToString())


def inputs_of(graph: "GraphProto") -> "list[ValueInfoProto]":
    """What is given to a graph: old ones list their weights among the inputs."""
    constants = {tensor.name for tensor in graph.initializer}
    return [each for each in graph.input if each.name not in constants]


def attribute(node: "NodeProto", name: str, default: Any) -> Any:
    """The value of a node's attribute, or `default` where the node does not have it."""
    from onnx import helper

    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)
