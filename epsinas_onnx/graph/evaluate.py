"""Computes what a node makes of operands that are known: the one place that does, and only what is small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from epsinas_onnx.graph.output_sizes import Known, is_small

Array = npt.NDArray[Any]


def evaluate(
    node: ir.Node, arrays: Sequence[Array | None], imports: Mapping[str, int], most: int
) -> Sequence[Array] | None:
    """Return a node's outputs as ONNX's reference implementation computes them; None where it has none or fails.

    most: how many entries an output may have; it is None, too, where one would have more, or nobody knows how many.
    """
    from onnx.reference import ReferenceEvaluator

    proto = ir.to_proto(node)
    given = [None if array is None else Known.of(array) for array in arrays]
    if not is_small(proto, given, imports, most):
        return None
    axes = node.attributes.get("axes")
    if node.op_type == "Unsqueeze" and axes is not None and arrays[0] is not None:
        return [np.expand_dims(arrays[0], tuple(axes.as_ints()))]  # onnx's own takes no list before operator set 13
    feeds = {name: array for name, array in zip(proto.input, arrays, strict=True) if array is not None}
    try:
        with np.errstate(all="ignore"):
            return list(ReferenceEvaluator(proto, opsets=dict(imports)).run(None, feeds))
    except Exception:  # it raises what it likes; the node is then lowered like any other
        return None
