"""Small models as text, and what the tests of this folder ask of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort

from epsinas_onnx.graph.analysis.roles import RoleDecisions
from epsinas_onnx.graph.load import load_model
from epsinas_onnx.graph.passes.constant_weights import WEIGHT_INPUT
from epsinas_onnx.scoring.options import GraphOptions
from epsinas_onnx.scoring.plan import PlainGraph, plain_graph, plan

from ..builders import build

Array = npt.NDArray[Any]


def decisions_of(proto: onnx.ModelProto, roles: Mapping[str, str] | None = None) -> RoleDecisions:
    """Decide the roles of a model for two samples."""
    return plan(load_model(proto), 2, GraphOptions(outputs=None, roles=dict(roles or {})), infer=True).decisions


def roles_of(proto: onnx.ModelProto, roles: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return role by NODE:SLOT; an unnamed node is called `Type(first output)`."""
    return {use.place: str(use.role) for use in decisions_of(proto, roles).uses}


def rewritten(proto: onnx.ModelProto, batch: int = 2, **options: Any) -> PlainGraph:
    """Prepare a model for `batch` samples."""
    return plain_graph(plan(load_model(proto), batch, GraphOptions(**options)))


def run_rewritten(prepared: PlainGraph, constant: float, feeds: Mapping[str, Array]) -> list[Array]:
    """Run a rewritten graph with its weight scalar fed, and return its compared outputs."""
    scalar = {WEIGHT_INPUT: np.asarray(constant, np.float32)}
    return run(ir.to_proto(prepared.model), {**feeds, **scalar})[: len(prepared.outputs)]


def run(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Run a model as it is, on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.array(array) for array in session.run(None, dict(feeds))]


def filled(
    proto: onnx.ModelProto, constant: float, weights: Sequence[str] = (), biases: Sequence[str] = (), **tables: Array
) -> onnx.ModelProto:
    """Return a copy with the stored tensors `weights` full of `constant`, `biases` full of 0, and `tables` given."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    missing = {*weights, *biases, *tables}
    for graph in graphs(copy.graph):
        for tensor in graph.initializer:
            if tensor.name in missing:
                missing.remove(tensor.name)
                stored = onnx.numpy_helper.to_array(tensor)
                level = tables.get(tensor.name, np.asarray(constant if tensor.name in weights else 0.0))
                full = np.broadcast_to(level, stored.shape).astype(stored.dtype)
                tensor.CopyFrom(onnx.numpy_helper.from_array(full, tensor.name))
    assert not missing, f"the model has no tensors {missing}"
    return copy


def newest_opset() -> int:
    """Return the newest operator set that both onnx and ONNX Runtime know."""
    opset = onnx.defs.onnx_opset_version()
    while True:
        try:
            run(build("(float[N] x) => (float[N] y) { y = Relu(x) }", opset), {"x": np.ones(1, np.float32)})
        except ort.capi.onnxruntime_pybind11_state.Fail:
            opset -= 1
        else:
            return opset


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and the bodies below it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs(attribute.g)


def stored_sizes(proto: onnx.ModelProto) -> list[int]:
    """Return the number of elements of every tensor that a model stores, Constant nodes and bodies included."""
    sizes = []
    for graph in graphs(proto.graph):
        sizes += [int(np.prod(tensor.dims)) for tensor in graph.initializer]
        sizes += [
            int(np.prod(attribute.t.dims))
            for node in graph.node
            for attribute in node.attribute
            if attribute.type == onnx.AttributeProto.TENSOR
        ]
    return sizes
