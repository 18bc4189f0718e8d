"""The shapes of ONNX Runtime's own operators are those that ONNX Runtime gives them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from epsinas_onnx.multiply_adds.call import Call, Dims, Operand
from epsinas_onnx.multiply_adds.outputs import contributed_shape

HEADS = {"num_heads": 4}
CASES: dict[str, tuple[str, list[Dims | None], dict[str, Any]]] = {
    "Attention": ("Attention", [(2, 5, 20), (20, 96), (96,)], HEADS),
    "Attention, sizes": ("Attention", [(2, 5, 20), (20, 88), (88,)], {**HEADS, "qkv_hidden_sizes": [32, 32, 24]}),
    "BiasGelu": ("BiasGelu", [(2, 5, 8), (8,)], {}),
    "FastGelu": ("FastGelu", [(2, 5, 8)], {}),
    "FusedConv": ("FusedConv", [(2, 6, 9, 8), (4, 6, 3, 3)], {"strides": [2, 1], "pads": [1, 0, 0, 2]}),
    "FusedConv, same": ("FusedConv", [(2, 6, 9, 8), (4, 6, 3, 3)], {"strides": [2, 1], "auto_pad": "SAME_LOWER"}),
    "FusedConv, valid": ("FusedConv", [(2, 6, 9, 8), (4, 6, 3, 3)], {"dilations": [2, 1], "auto_pad": "VALID"}),
    "FusedGemm": ("FusedGemm", [(7, 2), (3, 7)], {"transA": 1, "transB": 1, "activation": "Relu"}),
    "FusedMatMul": ("FusedMatMul", [(5, 1, 7, 2), (6, 7, 3)], {"transA": 1}),
    "FusedMatMul, a vector": ("FusedMatMul", [(5, 2, 7), (7,)], {}),
    "GroupQueryAttention": (
        "GroupQueryAttention", [(2, 1, 32), (2, 1, 16), (2, 1, 16), (2, 2, 3, 8), (2, 2, 3, 8)],
        {**HEADS, "kv_num_heads": 2},
    ),
    "GroupQueryAttention, packed": (
        "GroupQueryAttention", [(2, 1, 64), None, None, (2, 2, 3, 8), (2, 2, 3, 8)], {**HEADS, "kv_num_heads": 2}
    ),
    "MoE": ("MoE", [(10, 16), (10, 4), (4, 24, 16), None, (4, 16, 24)], {"k": 2}),
    "MultiHeadAttention": ("MultiHeadAttention", [(2, 5, 32), (2, 9, 32), (2, 9, 24)], HEADS),
    "MultiHeadAttention, crosswise": ("MultiHeadAttention", [(2, 5, 32), (2, 4, 9, 8), (2, 4, 9, 8)], HEADS),
    "QuickGelu": ("QuickGelu", [(2, 5, 8)], {}),
    "SkipLayerNormalization": ("SkipLayerNormalization", [(2, 5, 8), (2, 5, 8), (8,)], {}),
    "TransposeMatMul": ("TransposeMatMul", [(7, 2), (7, 3)], {"transA": 1}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_shape_is_the_one_that_onnx_runtime_gives(case: str) -> None:
    op_type, shapes, attributes = CASES[case]
    feeds = {f"i{n}": np.zeros(dims, np.float32) for n, dims in enumerate(shapes) if dims is not None}
    names = [f"i{n}" if dims is not None else "" for n, dims in enumerate(shapes)]
    if op_type == "GroupQueryAttention":
        feeds |= {"last": np.full(2, 3, np.int32), "total": np.asarray(4, np.int32)}
        names += ["last", "total"]
    outputs = ["y"] + (["key", "value"] if op_type == "GroupQueryAttention" else [])
    node = onnx.helper.make_node(op_type, names, outputs, domain="com.microsoft", **attributes)
    inputs = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    graph = onnx.helper.make_graph([node], "g", inputs, [onnx.helper.make_tensor_value_info("y", 1, None)])
    imports = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(["y"], feeds)
    call = Call("node", op_type, "com.microsoft", [dims and Operand(dims) for dims in shapes], [], attributes)
    assert contributed_shape(call) == y.shape


def test_what_does_not_follow_is_unknown() -> None:
    assert (
        contributed_shape(Call("n", "FusedConv", "com.microsoft", [Operand(None), Operand((4, 6, 3, 3))], [])) is None
    )
    assert contributed_shape(Call("n", "NonMaxSuppression", "", [Operand((2, 3))], [])) is None
    assert contributed_shape(Call("n", "BeamSearch", "com.microsoft", [Operand((2, 3))], [])) is None
