"""Owns the last resort for an operator without a kernel: a model of that node alone, run by ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from epsinas_onnx.evaluate_lumped.call import Call, Unsupported
from epsinas_onnx.evaluate_lumped.scaled import Array
from epsinas_onnx.lump.graph import LoweredGraph, Node
from epsinas_onnx.lump.value import Tensor
from epsinas_onnx.lump.write import write_model
from epsinas_onnx.runtime.providers import CPU, runtime
from epsinas_onnx.runtime.session import without_shapes


class SingleNode:
    """Runs one node. The session is made when it is first asked for; floats are what the node takes them for."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._session: Any = None

    def __call__(self, *operands: Array | None) -> tuple[Array, ...]:
        """Return the outputs; raises Unsupported where ONNX Runtime refuses the node."""
        node = self._call.node
        if self._session is None:
            self._session = self._made(node)
        feeds = {}
        for index, (tensor, array) in enumerate(zip(node.inputs, operands, strict=False)):
            if tensor is not None and array is not None:
                feeds[f"operand{index}"] = np.ascontiguousarray(
                    np.broadcast_to(array, array.shape), tensor.dtype.numpy()
                )
        try:
            return tuple(np.array(array) for array in self._session.run(None, feeds))
        except Exception as error:
            raise Unsupported(f"{node.op_type}: {error}") from error

    def _made(self, node: Node) -> Any:
        graph = LoweredGraph(self._call.imports)
        inputs: list[Tensor | None] = []
        for index, tensor in enumerate(node.inputs):
            inputs.append(None if tensor is None else graph.input(f"operand{index}", (), tensor.dtype))
        outputs = [(tensor.shape, tensor.dtype) for tensor in node.outputs]
        made = graph.ops(node.op_type, inputs, outputs, node.domain, node.attributes, False)
        proto = write_model(graph, {f"result{index}": tensor for index, tensor in enumerate(made)}, None)
        for value in proto.graph.input:
            value.type.tensor_type.ClearField("shape")
        ort = runtime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            serialised = without_shapes(proto).SerializeToString()
            return ort.InferenceSession(serialised, options, providers=[CPU])
        except Exception as error:
            raise Unsupported(f"{node.op_type}: {error}") from error


def single_node(call: Call) -> Any:
    """Return the node as a kernel."""
    if any(isinstance(value, onnx.GraphProto) for value in call.node.attributes.values()):
        raise Unsupported(f"{call.op_type} holds a graph")
    return SingleNode(call)
