"""Says what takes the place of each operator that computes with integers, or that makes them or floats of them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from epsinas_onnx.graph.passes.float_rewriter import Handler, Rewriter
from epsinas_onnx.graph.passes.packed import UNPACKERS

_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
_POOL = ("auto_pad", "ceil_mode", "count_include_pad", "dilations", "kernel_shape", "pads", "strides")
_RECURRENT = ("activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size", "input_forget")


def _operand(node: ir.Node, slot: int) -> ir.Value | None:
    return node.inputs[slot] if slot < len(node.inputs) else None


def _quantize(rewriter: Rewriter, node: ir.Node) -> None:
    x, zero = _operand(node, 0), _operand(node, 2)
    if x is None:
        return
    if x in rewriter.static and x not in rewriter.real:  # a weight that is stored as floats and rounded when it is used
        rewriter.real[node.outputs[0]] = x
        rewriter.replaced.append(node)
        return
    x = rewriter.real.get(x, x)
    cut = rewriter.cuts(x, zero, node.outputs[0].dtype)
    real = rewriter.node("Relu", [x], f"{node.outputs[0].name}.relu") if cut else x
    rewriter.real[node.outputs[0]] = real
    rewriter.integers.add(node.outputs[0])
    rewriter.replaced.append(node)
    rewriter.done.activations += 1


def _dequantize(rewriter: Rewriter, node: ir.Node) -> None:
    x = _operand(node, 0)
    if x is not None and x in rewriter.real:
        rewriter.real[node.outputs[0]] = rewriter.real[x]
        rewriter.replaced.append(node)


def _dynamic(rewriter: Rewriter, node: ir.Node) -> None:
    x = _operand(node, 0)
    assert x is not None
    rewriter.real[node.outputs[0]] = rewriter.real.get(x, x)
    rewriter.integers.add(node.outputs[0])
    rewriter.scales.update(node.outputs[1:2])
    rewriter.replaced.append(node)
    rewriter.done.activations += 1


def _integer_product(op_type: str, keep: Sequence[str] = ()) -> Handler:
    def handle(rewriter: Rewriter, node: ir.Node) -> None:
        rewriter.replace(node, op_type, [rewriter.signal(value) for value in node.inputs[:2]], keep)
        rewriter.products.add(node.outputs[0])

    return handle


def _q_linear(op_type: str, operands: Sequence[int], zero: int, keep: Sequence[str] = ()) -> Handler:
    """Return what replaces an operator that reads values in the slots `operands`, and a zero point in `zero`."""

    def handle(rewriter: Rewriter, node: ir.Node) -> None:
        inputs = [rewriter.signal(_operand(node, slot)) for slot in operands]
        quantised = _operand(node, zero) is not None or _operand(node, zero - 1) is not None
        cut = quantised and rewriter.cuts(None, _operand(node, zero))
        rewriter.replace(node, op_type, inputs, keep, relu=cut)

    return handle


def _q_concat(rewriter: Rewriter, node: ir.Node) -> None:
    inputs = [rewriter.signal(value) for value in node.inputs[2::3]]
    rewriter.replace(node, "Concat", inputs, ("axis",))


def _to_float(rewriter: Rewriter, node: ir.Node) -> None:
    bias = {"MatMulIntegerToFloat": 6, "DynamicQuantizeMatMul": 4}[node.op_type]
    inputs = [rewriter.signal(value) for value in node.inputs[:2]]
    rewriter.replace(node, "MatMul", inputs, bias=_operand(node, bias))


def _lstm(rewriter: Rewriter, node: ir.Node) -> None:
    """Replace a DynamicQuantizeLSTM, whose weights lie the other way round than those of an LSTM."""
    inputs: list[ir.Value | None] = [rewriter.real.get(v, v) if v else None for v in node.inputs[:8]]
    for slot in (1, 2):
        real = rewriter.signal(node.inputs[slot])
        order = ir.AttrInt64s("perm", [0, 2, 1])
        inputs[slot] = rewriter.node("Transpose", [real], f"{node.inputs[slot].name}.turned", [order])  # type: ignore[union-attr]
    rewriter.replace(node, "LSTM", inputs, _RECURRENT)


def _attention(rewriter: Rewriter, node: ir.Node) -> None:
    inputs = [rewriter.signal(value) for value in node.inputs[:2]] + [_operand(node, 2), _operand(node, 5)]
    rewriter.replace(node, "Attention", inputs, ("num_heads", "unidirectional", "mask_filter_value"), "com.microsoft")


HANDLERS: dict[str, Handler] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic,
    "MatMulInteger": _integer_product("MatMul"),
    "ConvInteger": _integer_product("Conv", _CONV),
    "QLinearConv": _q_linear("Conv", (0, 3, 8), 7, _CONV),
    "QLinearMatMul": _q_linear("MatMul", (0, 3), 7),
    "QGemm": _q_linear("Gemm", (0, 3, 6), 8, ("alpha", "transA", "transB")),
    "QLinearAdd": _q_linear("Add", (0, 3), 7),
    "QLinearMul": _q_linear("Mul", (0, 3), 7),
    "QLinearConcat": _q_concat,
    "QLinearAveragePool": _q_linear("AveragePool", (0,), 4, _POOL),
    "QLinearGlobalAveragePool": _q_linear("GlobalAveragePool", (0,), 4),
    "QLinearLeakyRelu": _q_linear("LeakyRelu", (0,), 4, ("alpha",)),
    "QLinearSigmoid": _q_linear("Sigmoid", (0,), 4),
    "QLinearSoftmax": _q_linear("Softmax", (0,), 4, ("axis",)),
    "MatMulIntegerToFloat": _to_float,
    "DynamicQuantizeMatMul": _to_float,
    "DynamicQuantizeLSTM": _lstm,
    "QAttention": _attention,
    **UNPACKERS,
}
"""By operator of the standard domain or of com.microsoft."""
