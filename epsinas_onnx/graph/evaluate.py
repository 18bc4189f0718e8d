"""Computes what a node makes of operands that are known: the one place that does, and only what is small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from epsinas_onnx.graph.constant_tensor import node_proto
from epsinas_onnx.graph.output_sizes import Known, is_small

Array = npt.NDArray[Any]

_KEPT = 4096
"""Of nodes that take and give no more entries each it is remembered what they gave."""


def evaluate(
    node: ir.Node, arrays: Sequence[Array | None], imports: Mapping[str, int], most: int
) -> Sequence[Array] | None:
    """Return a node's outputs as ONNX's reference implementation computes them; None where it has none or fails.

    most: how many entries an output may have; it is None, too, where one would have more, or nobody knows how many.
    """
    proto = node_proto(node)
    many = most > _KEPT or any(array is not None and array.size > _KEPT for array in arrays)
    if many or any(array is not None and array.dtype.kind not in "fiub" for array in arrays):
        return _computed(proto, arrays, imports, most)
    # A graph is lowered more than once, for each arithmetic, and measured.
    held = tuple([None if array is None else (array.dtype.str, array.shape, array.tobytes()) for array in arrays])
    found = _kept(proto.SerializeToString(), held, tuple(imports.items()), most)
    return None if found is None else [np.array(array) if isinstance(array, np.ndarray) else array for array in found]


@lru_cache(maxsize=1024)
def _kept(
    node: bytes, held: tuple[tuple[str, tuple[int, ...], bytes] | None, ...], imports: tuple[tuple[str, int], ...],
    most: int,
) -> Sequence[Array] | None:  # fmt: skip
    arrays = [None if one is None else np.frombuffer(one[2], one[0]).reshape(one[1]).copy() for one in held]
    return _computed(onnx.NodeProto.FromString(node), arrays, dict(imports), most)


def _computed(
    proto: onnx.NodeProto, arrays: Sequence[Array | None], imports: Mapping[str, int], most: int
) -> Sequence[Array] | None:
    from onnx.reference import ReferenceEvaluator

    given = [None if array is None else Known.of(array) for array in arrays]
    if not is_small(proto, given, imports, most):
        return None
    axes = next((attribute.ints for attribute in proto.attribute if attribute.name == "axes"), None)
    if proto.op_type == "Unsqueeze" and axes is not None and arrays[0] is not None:
        return [np.expand_dims(arrays[0], tuple(axes))]  # onnx's own takes no list before operator set 13
    feeds = {name: array for name, array in zip(proto.input, arrays, strict=True) if array is not None}
    try:
        with np.errstate(all="ignore"):
            return list(ReferenceEvaluator(proto, opsets=dict(imports)).run(None, feeds))
    except Exception:  # it raises what it likes; the node is then lowered like any other
        return None
