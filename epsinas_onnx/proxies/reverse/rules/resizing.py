"""Derivatives of resampling: along each axis the transposed of what the operator weighs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from epsinas_onnx.proxies.reverse.call import Call
from epsinas_onnx.proxies.reverse.registry import Gradients, rule
from epsinas_onnx.proxies.reverse.writer import Array
from epsinas_onnx.runtime.providers import CPU, runtime

_OWN = ("axes", "keep_aspect_ratio_policy", "scales")
"""Attributes that say which axes are meant, not how one is resampled."""


@rule("Resize", "Upsample")
def resize(call: Call) -> Gradients:
    """Each axis by its matrix; whole copies of entries are added up, which is less work."""
    if call.wanted - {0}:
        raise call.refuse("the size depends on what is differentiated by")
    if call.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise call.refuse("it crops while it resizes")
    shape, out = call.shape(), call.out
    rank = len(shape)
    copied: dict[int, int] = {}
    value = call.grad
    for axis, (scale, by_size) in _plan(call).items():
        if out[axis] == shape[axis] and scale in (1.0, float(shape[axis]) if by_size else 1.0):
            continue
        matrix = _matrix(call, shape[axis], out[axis], scale, by_size)
        times = out[axis] // shape[axis]
        if out[axis] == times * shape[axis] and np.array_equal(matrix, np.repeat(np.eye(shape[axis]), times, 0)):
            copied[axis] = times
        else:
            value = call.write.along(value, matrix, axis, rank, call.dtype)
    if copied:
        apart, summed = [], []
        for axis in range(rank):
            apart.append(shape[axis])
            if axis in copied:
                summed.append(len(apart))
                apart.append(copied[axis])
        value = call.write.reduce("ReduceSum", call.write.reshape(value, apart), summed, keepdims=False)
    return value


def _plan(call: Call) -> dict[int, tuple[float, bool]]:
    """Return what each axis is given, a scale or a size, and whether it is a size."""
    rank = len(call.shape())
    axes = call.integers("axes") or list(range(rank))
    sizes = call.known(3) if call.node.op_type == "Resize" and call.opset >= 11 else None
    if sizes is not None and sizes.size:
        if call.text("keep_aspect_ratio_policy", "stretch") != "stretch":
            return {axis % rank: (call.out[axis] / call.shape()[axis], False) for axis in axes}
        return {axis % rank: (float(size), True) for axis, size in zip(axes, sizes.tolist(), strict=True)}
    if call.opset >= 9:
        scales = call.array(2 if call.node.op_type == "Resize" and call.opset >= 11 else 1).tolist()
    else:
        scales = list(call.node.attributes["scales"].as_floats())
    return {axis % rank: (scale, False) for axis, scale in zip(axes, scales, strict=True)}


def _matrix(call: Call, size: int, count: int, scale: float, by_size: bool) -> Array:
    """Return `[count, size]`, which ONNX Runtime tells by resampling unit vectors, its own rounding included."""
    late = call.opset >= 11 and call.node.op_type == "Resize"
    given: Any = np.asarray([1, 1, size, count], np.int64) if by_size else np.asarray([1, 1, 1, scale], np.float32)
    inputs = ["x", "scales"] if not late else ["x", "", "", "sizes"] if by_size else ["x", "", "scales"]
    node = ir.to_proto(call.node)
    node.ClearField("input")
    node.input.extend(inputs[:1] if call.opset < 9 else inputs)
    del node.output[1:]
    node.output[0] = "y"
    kept = [attribute for attribute in node.attribute if attribute.name not in _OWN]
    if call.opset < 9:
        kept.append(onnx.helper.make_attribute("scales", [1.0, 1.0, 1.0, scale]))
    node.ClearField("attribute")
    node.attribute.extend(kept)
    float32 = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node], "resampling", [onnx.helper.make_tensor_value_info("x", float32, [1, 1, size, size])],
        [onnx.helper.make_tensor_value_info("y", float32, None)],
        [onnx.numpy_helper.from_array(given, inputs[-1])] if call.opset >= 9 else [],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", call.opset)], ir_version=8)
    ort = runtime()
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=[CPU])
        made = session.run(None, {"x": np.eye(size, dtype=np.float32)[None, None]})[0]
    except Exception as error:
        raise call.refuse("ONNX Runtime does not tell how it weighs along one axis") from error
    matrix: Array = made[0, 0].T.astype(np.float64)
    if matrix.shape != (count, size):
        raise call.refuse(f"an axis of {size} is resized to {matrix.shape[0]} alone, and to {count} with the others")
    return matrix
