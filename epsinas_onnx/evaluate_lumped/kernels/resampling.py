"""Kernels of resampling: along each axis a matrix, which ONNX Runtime tells by resampling unit vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from epsinas_onnx.evaluate_lumped.call import Call, Unsupported
from epsinas_onnx.evaluate_lumped.kernels.layout import Kernel
from epsinas_onnx.evaluate_lumped.kernels.linear import multiplied
from epsinas_onnx.evaluate_lumped.scaled import Array
from epsinas_onnx.evaluate_lumped.single_node import SingleNode
from epsinas_onnx.lump.graph import Node
from epsinas_onnx.lump.value import Tensor

_FLOAT, _INT64 = ir.DataType.FLOAT, ir.DataType.INT64


def resize(call: Call) -> Kernel:
    """Resampling to a size or by scales, one axis after the other, as all of its modes are made of."""
    if str(call.attribute("keep_aspect_ratio_policy", "stretch")) != "stretch" or (
        str(call.attribute("coordinate_transformation_mode", "half_pixel")) == "tf_crop_and_resize"
    ):
        raise Unsupported("Resize that keeps the aspect, or crops")
    late = call.opset >= 11
    known: dict[Any, list[tuple[int, Array]]] = {}

    def kernel(x: Array, *operands: Any) -> Array:
        operands = (*operands, None, None, None)
        scales, sizes = (operands[1], operands[2]) if late else (operands[0], None)
        key = (x.shape, *(None if o is None else o.tobytes() for o in (scales, sizes)))
        if key not in known:
            axes = call.integers("axes") or list(range(x.ndim))
            known[key] = []
            for index, axis in enumerate(axes):
                given = sizes if sizes is not None and sizes.size else scales
                matrix = _matrix(call, x.shape[axis], given, index, given is sizes)
                if matrix is not None:
                    known[key].append((axis % x.ndim, matrix))
        for axis, matrix in known[key]:
            x = multiplied(x, matrix.astype(x.dtype, copy=False), axis)
        return x

    return kernel


def _matrix(call: Call, size: int, given: Array, index: int, by_size: bool) -> Array | None:
    """Return `[out, size]`, None for one that changes nothing."""
    late = call.opset >= 11
    shape = (1, 1, size, size)
    if by_size:
        plan = np.asarray([1, 1, size, given[index]], np.int64)
    else:
        plan = np.asarray([1, 1, 1, given[index]], np.float32)
    if plan[-1] == (size if by_size else 1.0):
        return None
    image = Tensor("image", shape, _FLOAT)
    wanted = Tensor("wanted", (4,), _INT64 if by_size else _FLOAT)
    nothing = Tensor("nothing", (0,), _FLOAT)
    slots = (image, nothing, nothing, wanted) if by_size else (image, nothing, wanted)
    attributes = {name: value for name, value in call.node.attributes.items() if name != "axes"}
    node = Node(call.op_type, "", slots if late else (image, wanted), (Tensor("made", None, _FLOAT),), attributes, "")
    holds: dict[Tensor, Array] = {
        image: np.eye(size, dtype=np.float32)[None, None],
        nothing: np.zeros(0, np.float32),
        wanted: plan,
    }
    operands = [holds[slot] for slot in node.inputs if slot is not None]
    (made,) = SingleNode(Call(node, (), call.imports))(*operands)
    matrix: Array = made[0, 0].T.astype(np.float64)
    return matrix
