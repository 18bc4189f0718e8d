"""Every operator is counted by hand or said to count as nothing, and none that ONNX or ONNX Runtime knows is missed."""

from __future__ import annotations

from typing import Any

import onnx.defs
import onnxruntime.capi._pybind_state as ort
import pytest

from epsinas_onnx.multiply_adds.call import Body, Call, Dims, Operand
from epsinas_onnx.multiply_adds.table import COUNTED, HOLDING_GRAPHS, LEFT_OUT, NOTHING, UNCOUNTABLE, takes_no_products
from epsinas_onnx.multiply_adds.total import MultiplyAdds, added_up

MS, NHWC, NCHWC, ML = "com.microsoft", "com.ms.internal.nhwc", "com.microsoft.nchwc", "ai.onnx.ml"
SCHEMAS = {
    (schema.domain, schema.name)
    for schema in [*onnx.defs.get_all_schemas_with_history(), *ort.get_all_operator_schema()]
}


def call(
    op_type: str, inputs: list[Dims | None], output: Dims | None = None, domain: str = "", **attributes: Any
) -> Call:
    operands = [None if shape is None else Operand(shape) for shape in inputs]
    return Call("node", op_type, domain, operands, [output], attributes)


S: Dims = ()  # a scale or a zero point
# Products by hand: batch 2, 5 tokens, 4 heads of 8 (32 features), 7 keys in a cache, and so on, as the shapes say.
BY_HAND = {
    "AffineGrid": (call("AffineGrid", [(2, 2, 3), (4,)], (2, 6, 7, 2)), 2 * 42 * 2 * 3),
    "Attention": (call("Attention", [(2, 4, 5, 8), (2, 4, 9, 8), (2, 4, 9, 6)]), 2 * 4 * 5 * 9 * (8 + 6)),
    "Attention, shared heads": (call("Attention", [(2, 4, 5, 8), (2, 2, 9, 8), (2, 2, 9, 6)]), 2 * 4 * 5 * 9 * 14),
    "Attention of three axes": (
        call("Attention", [(2, 5, 32), (2, 9, 16), (2, 9, 12)], q_num_heads=4, kv_num_heads=2),
        2 * 4 * 5 * 9 * (8 + 6),
    ),
    "Attention with a cache": (
        call("Attention", [(2, 4, 5, 8), (2, 4, 5, 8), (2, 4, 5, 6), None, (2, 4, 7, 8), (2, 4, 7, 6)]),
        2 * 4 * 5 * (7 + 5) * (8 + 6),
    ),
    "CausalConvWithState": (call("CausalConvWithState", [(2, 6, 10), (6, 1, 4)]), 2 * 6 * 10 * 4),
    "Conv": (call("Conv", [(2, 6, 8, 8), (4, 6, 3, 3)], (2, 4, 6, 6)), 2 * 4 * 36 * 6 * 9),
    "Conv in groups": (call("Conv", [(2, 6, 8), (6, 1, 3)], (2, 6, 6), group=6), 2 * 6 * 6 * 3),
    "ConvInteger": (call("ConvInteger", [(2, 6, 8, 8), (4, 6, 3, 3), S, S], (2, 4, 6, 6)), 2 * 4 * 36 * 54),
    "ConvTranspose": (call("ConvTranspose", [(2, 4, 6, 6), (4, 3, 2, 2)], (2, 3, 7, 7)), 2 * 4 * 36 * 3 * 4),
    "DeformConv": (call("DeformConv", [(2, 6, 8, 8), (4, 6, 3, 3), (2, 18, 6, 6)], (2, 4, 6, 6)), 2 * 4 * 36 * 54),
    "Einsum, a matrix product": (call("Einsum", [(2, 5, 7), (7, 3)], equation="bij,jk->bik"), 2 * 5 * 7 * 3),
    "Einsum, attention": (call("Einsum", [(2, 5, 4, 8), (2, 9, 4, 8)], equation="bqhd,bkhd->bhqk"), 2 * 5 * 4 * 8 * 9),
    "Einsum, outer": (call("Einsum", [(5,), (3,)], equation="i,j->ij"), 15),
    "Einsum, implicit": (call("Einsum", [(5, 7), (7, 3)], equation="ij, jk"), 5 * 7 * 3),
    "Einsum, ellipses": (call("Einsum", [(6, 2, 5, 7), (2, 7, 3)], equation="...ij,...jk->...ik"), 6 * 2 * 5 * 7 * 3),
    "Einsum, broadcast": (call("Einsum", [(1, 5, 7), (6, 7, 3)], equation="...ij,...jk->...ik"), 6 * 5 * 7 * 3),
    "Einsum, a chain": (call("Einsum", [(5, 7), (7, 3), (3, 4)], equation="ij,jk,kl->il"), 5 * 7 * 3 + 5 * 3 * 4),
    "Einsum, bilinear": (
        call("Einsum", [(2, 5), (6, 5, 7), (2, 7)], equation="bi,oij,bj->bo"), 2 * 5 * 6 * 7 + 2 * 6 * 7
    ),
    "Einsum, summed before": (call("Einsum", [(5, 7), (7, 3)], equation="ij,jk->k"), 7 * 3),
    "Einsum, one operand": (call("Einsum", [(5, 5)], equation="ii->i"), 0),
    "GRU": (call("GRU", [(7, 2, 3), (1, 12, 3), (1, 12, 4)]), 7 * 2 * 12 * (3 + 4)),
    "Gemm": (call("Gemm", [(2, 7), (7, 3), (3,)], (2, 3)), 2 * 7 * 3),
    "Gemm, transposed": (call("Gemm", [(7, 2), (3, 7)], (2, 3), transA=1, transB=1), 2 * 7 * 3),
    "LSTM": (call("LSTM", [(7, 2, 3), (2, 16, 3), (2, 16, 4)]), 7 * 2 * 2 * 16 * (3 + 4)),
    "LinearAttention": (
        call("LinearAttention", [(2, 5, 32), (2, 5, 16), (2, 5, 12)], q_num_heads=4, kv_num_heads=2,
             update_rule="gated"),
        2 * 5 * 8 * 6 * (2 + 4),
    ),
    "LinearAttention, delta": (
        call("LinearAttention", [(2, 5, 32), (2, 5, 16), (2, 5, 12)], q_num_heads=4, kv_num_heads=2),
        2 * 5 * 8 * 6 * (2 + 2 + 4),
    ),
    "MatMul": (call("MatMul", [(5, 2, 7), (7, 3)], (5, 2, 3)), 5 * 2 * 7 * 3),
    "MatMul, batches": (call("MatMul", [(5, 1, 2, 7), (6, 7, 3)]), 5 * 6 * 2 * 7 * 3),
    "MatMul, a vector": (call("MatMul", [(7,), (7, 3)], (3,)), 21),
    "MatMulInteger": (call("MatMulInteger", [(2, 7), (7, 3), S, S], (2, 3)), 42),
    "QLinearConv": (
        call("QLinearConv", [(2, 6, 8, 8), S, S, (4, 6, 3, 3), S, S, S, S], (2, 4, 6, 6)), 2 * 4 * 36 * 54
    ),
    "QLinearMatMul": (call("QLinearMatMul", [(2, 7), S, S, (7, 3), S, S, S, S], (2, 3)), 42),
    "RNN": (call("RNN", [(7, 2, 3), (1, 4, 3), (1, 4, 4)]), 7 * 2 * 4 * (3 + 4)),
    "LinearClassifier": (call("LinearClassifier", [(2, 7)], domain=ML, coefficients=[0.0] * 21), 42),
    "LinearRegressor": (call("LinearRegressor", [(2, 7)], domain=ML, coefficients=[0.0] * 7), 14),
    "SVMClassifier": (
        call("SVMClassifier", [(2, 7)], domain=ML, support_vectors=[0.0] * 35, coefficients=[0.0] * 10),
        2 * (5 * 7 + 2 * 5),
    ),
    "SVMRegressor": (
        call("SVMRegressor", [(2, 7)], domain=ML, support_vectors=[0.0] * 35, coefficients=[0.0] * 5), 2 * (5 * 7 + 5)
    ),
    "FlexAttention": (
        call("FlexAttention", [(2, 4, 5, 8), (2, 2, 9, 8), (2, 2, 9, 6)], domain="ai.onnx.preview"), 2 * 4 * 5 * 9 * 14
    ),
    "Attention (microsoft)": (
        call("Attention", [(2, 5, 32), (32, 96)], domain=MS, num_heads=4), 2 * 5 * 32 * 96 + 2 * 5 * 5 * (32 + 32)
    ),
    "Attention (microsoft), sizes and a cache": (
        call("Attention", [(2, 5, 20), (20, 88), None, None, (2, 2, 4, 7, 8)], domain=MS, num_heads=4,
             qkv_hidden_sizes=[32, 32, 24]),
        2 * 5 * 20 * 88 + 2 * 5 * (5 + 7) * (32 + 24),
    ),
    "CDist": (call("CDist", [(5, 7), (3, 7)], domain=MS), 5 * 7 * 3),
    "CausalConvWithState (microsoft)": (
        call("CausalConvWithState", [(2, 6, 10), (6, 1, 4)], domain=MS), 2 * 6 * 10 * 4
    ),
    "ConvTransposeWithDynamicPads": (
        call("ConvTransposeWithDynamicPads", [(2, 4, 6, 6), (4, 3, 2, 2), (4,)], domain=MS), 2 * 4 * 36 * 12
    ),
    "DecoderMaskedMultiHeadAttention": (
        call("DecoderMaskedMultiHeadAttention", [(2, 1, 32), (2, 1, 32), (2, 1, 24), None, None, (2, 4, 7, 8)],
             domain=MS),
        2 * (7 + 1) * (32 + 24),
    ),
    "DecoderMaskedMultiHeadAttention, crosswise": (
        call("DecoderMaskedMultiHeadAttention", [(2, 1, 32), (2, 4, 9, 8), (2, 4, 9, 6)], domain=MS), 2 * 9 * (32 + 24)
    ),
    "DecoderMaskedSelfAttention": (
        call("DecoderMaskedSelfAttention", [(2, 1, 32), (32, 96), None, None, (2, 2, 4, 7, 8)], domain=MS),
        2 * 32 * 96 + 2 * (7 + 1) * 64,
    ),
    "DynamicQuantizeLSTM": (call("DynamicQuantizeLSTM", [(7, 2, 3), (1, 3, 16), (1, 4, 16)], domain=MS), 7 * 2 * 112),
    "DynamicQuantizeMatMul": (call("DynamicQuantizeMatMul", [(2, 7), (7, 3), S], domain=MS), 42),
    "EngramGate": (call("EngramGate", [(2, 5, 3, 8), (2, 5, 3, 8), (2, 5, 8)], domain=MS), 2 * 5 * 3 * 8),
    "FusedConv": (call("FusedConv", [(2, 6, 8, 8), (4, 6, 3, 3)], domain=MS, pads=[1] * 4), 2 * 4 * 64 * 54),
    "FusedConv, steps": (
        call("FusedConv", [(2, 6, 9, 9), (4, 6, 3, 3)], domain=MS, strides=[2, 2], dilations=[2, 1]), 2 * 4 * 12 * 54
    ),
    "FusedConv, same": (
        call("FusedConv", [(2, 6, 9, 9), (4, 6, 3, 3)], domain=MS, strides=[2, 2], auto_pad="SAME_UPPER"),
        2 * 4 * 25 * 54,
    ),
    "FusedGemm": (call("FusedGemm", [(2, 7), (3, 7)], domain=MS, transB=1), 42),
    "FusedMatMul": (call("FusedMatMul", [(5, 7, 2), (5, 3, 7)], domain=MS, transA=1, transB=1), 5 * 42),
    "FusedMatMulActivation": (call("FusedMatMulActivation", [(5, 2, 7), (7, 3)], domain=MS), 5 * 42),
    "GatedDeltaNet": (
        call("GatedDeltaNet", [(5, 4, 8), (5, 4, 8), (5, 6, 3)], domain=MS, update_rule="linear"), 5 * 24 * (6 + 6)
    ),
    "GatedDeltaNet, packed": (
        call("GatedDeltaNet", [(5, 4 * 8 * 2 + 6 * 3), None, None, None, None, None, (1, 6, 3, 8)], domain=MS),
        5 * 24 * (2 * 6 + 6),
    ),
    "GatedRelativePositionBias": (
        call("GatedRelativePositionBias", [(2, 5, 32), (32,), (1, 4, 5, 5), (8, 6)], domain=MS), 2 * 5 * 4 * 8 * 6
    ),
    "GemmFastGelu": (call("GemmFastGelu", [(5, 2, 7), (7, 3)], domain=MS), 5 * 42),
    "GemmFloat8": (call("GemmFloat8", [(2, 7), (3, 7)], domain=MS, transB=1), 42),
    "GroupQueryAttention": (
        call("GroupQueryAttention", [(2, 5, 32), (2, 5, 16), (2, 5, 16), (2, 2, 7, 8), (2, 2, 7, 8)], domain=MS,
             num_heads=4, kv_num_heads=2),
        2 * 4 * 5 * (5 + 7) * (8 + 8),
    ),
    "GroupQueryAttention, packed": (
        call("GroupQueryAttention", [(2, 5, 64)], domain=MS, num_heads=4, kv_num_heads=2), 2 * 4 * 5 * 5 * (8 + 8)
    ),
    "HyperConnectionLowRankMix": (
        call("HyperConnectionLowRankMix", [(2, 5, 24), (24,), (24, 4), (4, 24), (24, 3)], domain=MS),
        10 * (24 * 4 + 4 * 24 + 24 * 3) + 10 * 24,
    ),
    "HyperConnectionPostMix": (
        call("HyperConnectionPostMix", [(2, 5, 3, 8), (2, 5, 8), (2, 5, 3), (2, 5, 3, 3)], domain=MS), 10 * 3 * 3 * 8
    ),
    "HyperConnectionPreMix": (call("HyperConnectionPreMix", [(2, 5, 3, 8), (2, 5, 3)], domain=MS), 10 * 3 * 8),
    "LinearAttention (microsoft)": (
        call("LinearAttention", [(2, 5, 32), (2, 5, 32), (2, 5, 24)], domain=MS, q_num_heads=4, kv_num_heads=4,
             update_rule=b"delta"),
        2 * 5 * 4 * 8 * 6 * 3,
    ),
    "MatMulBlockQuantizedFp4Weight": (
        call("MatMulBlockQuantizedFp4Weight", [(2, 5, 32), (12, 16), (12, 2), S], domain=MS), 10 * 32 * 12
    ),
    "MatMulBlockQuantizedFp8Weight": (
        call("MatMulBlockQuantizedFp8Weight", [(2, 5, 32), (12, 32), (12, 1)], domain=MS), 10 * 32 * 12
    ),
    "MatMulBnb4": (call("MatMulBnb4", [(2, 5, 32), (192,), (12,)], domain=MS, K=32, N=12), 10 * 32 * 12),
    "MatMulFpQ4": (call("MatMulFpQ4", [(10, 32), (240,), (2,)], (10, 12), domain=MS), 10 * 32 * 12),
    "MatMulInteger16": (call("MatMulInteger16", [(2, 7), (7, 3)], domain=MS), 42),
    "MatMulIntegerToFloat": (call("MatMulIntegerToFloat", [(2, 7), (7, 3), S, S], domain=MS), 42),
    "MatMulNBits": (call("MatMulNBits", [(2, 5, 32), (12, 1, 16), (12,)], domain=MS, K=32, N=12), 10 * 32 * 12),
    "MatMulNBitsMlp": (call("MatMulNBitsMlp", [(2, 5, 32)], domain=MS, K=32, N=12), 2 * 10 * 32 * 12),
    "MatMulNBitsQLoRA": (
        call("MatMulNBitsQLoRA", [(2, 5, 32), (12, 1, 16), (12, 1), (3, 1, 16), (3, 1), (12, 1, 16), (12, 1)],
             domain=MS, K=32, N=12),
        10 * (32 * 12 + 32 * 3 + 3 * 12),
    ),
    "MatMulNBitsQkv": (call("MatMulNBitsQkv", [(2, 5, 32)], domain=MS, K=32, Nq=32, Nkv=16), 10 * 32 * (32 + 16 + 16)),
    "MatMulPacked": (call("MatMulPacked", [(2, 5, 32), (12, 18)], domain=MS, K=32, N=12), 10 * 32 * 12),
    "MoE": (
        call("MoE", [(2, 5, 16), (10, 4), (4, 24, 16), None, (4, 16, 24)], domain=MS, k=2), 10 * 2 * (16 * 24 + 24 * 16)
    ),
    "MoE, gated": (
        call("MoE", [(10, 16), (10, 4), (4, 24, 16), None, (4, 16, 24), None, (4, 24, 16)], domain=MS),
        10 * 3 * 16 * 24,
    ),
    "MoEGroupRouter": (call("MoEGroupRouter", [(10, 16), (4,), (4, 16)], domain=MS), 10 * 16 * 4),
    "MoEGroupRouter of scores": (call("MoEGroupRouter", [(10, 4), (4,)], domain=MS), 0),
    "MoEPacked": (
        call("MoEPacked", [(10, 16), (10, 4), (4, 24, 9), (4, 24, 9), (4, 16, 13)], domain=MS, k=2),
        10 * 2 * 3 * 16 * 24,
    ),
    "MultiHeadAttention": (
        call("MultiHeadAttention", [(2, 5, 32), (2, 9, 32), (2, 9, 24)], domain=MS, num_heads=4), 2 * 5 * 9 * (32 + 24)
    ),
    "MultiHeadAttention, packed": (
        call("MultiHeadAttention", [(2, 5, 4, 3, 8)], domain=MS, num_heads=4), 2 * 5 * 5 * (32 + 32)
    ),
    "MultiHeadAttention, packed keys": (
        call("MultiHeadAttention", [(2, 5, 32), (2, 9, 4, 2, 8)], domain=MS, num_heads=4), 2 * 5 * 9 * (32 + 32)
    ),
    "MultiHeadAttention, crosswise": (
        call("MultiHeadAttention", [(2, 5, 32), (2, 4, 9, 8), (2, 4, 9, 6)], domain=MS), 2 * 5 * 9 * (32 + 24)
    ),
    "MultiHeadAttention with a cache": (
        call("MultiHeadAttention", [(2, 5, 32), (2, 5, 32), (2, 5, 32), None, None, None, (2, 4, 7, 8)], domain=MS),
        2 * 5 * (5 + 7) * 64,
    ),
    "NhwcConv": (call("NhwcConv", [(2, 8, 8, 6), (4, 6, 3, 3)], domain=MS), 2 * 4 * 36 * 54),
    "NhwcFusedConv": (call("NhwcFusedConv", [(2, 8, 8, 6), (4, 6, 3, 3)], (2, 6, 6, 4), domain=MS), 2 * 4 * 36 * 54),
    "PackedAttention": (
        call("PackedAttention", [(8, 32), (32, 96), (96,), (2, 5), (3,)], domain=MS), 8 * 32 * 96 + 2 * 5 * 5 * 64
    ),
    "PackedMultiHeadAttention": (
        call("PackedMultiHeadAttention", [(8, 32), (8, 32), (8, 24), None, (2, 5), (3,)], domain=MS), 2 * 5 * 5 * 56
    ),
    "PackedMultiHeadAttention of one tensor": (
        call("PackedMultiHeadAttention", [(8, 4, 3, 8), None, None, None, (2, 5), (3,)], domain=MS), 2 * 5 * 5 * 64
    ),
    "QAttention": (
        call("QAttention", [(2, 5, 32), (32, 96), (96,), S, S, None, S, S, (2, 2, 4, 7, 8)], domain=MS),
        2 * 5 * 32 * 96 + 2 * 5 * (5 + 7) * 64,
    ),
    "QGemm": (call("QGemm", [(2, 7), S, S, (7, 3), S, S], domain=MS), 42),
    "QLinearConv (microsoft)": (
        call("QLinearConv", [(2, 8, 8, 6), S, S, (4, 6, 3, 3), S, S], domain=MS, channels_last=1), 2 * 4 * 36 * 54
    ),
    "QMoE": (
        call("QMoE", [(10, 16), (10, 4), (4, 24, 8), None, None, (4, 16, 12)], domain=MS, k=2), 10 * 2 * 2 * 16 * 24
    ),
    "QMoE of eight bits": (
        call("QMoE", [(10, 16), (10, 4), (4, 24, 16), None, None, (4, 16, 24)], domain=MS, expert_weight_bits=8),
        10 * 2 * 16 * 24,
    ),
    "QOrderedAttention": (
        call("QOrderedAttention", [(2, 5, 20), S, S, S, S, (20, 32), (20, 32), (20, 24)], domain=MS),
        2 * 5 * 20 * 88 + 2 * 5 * 5 * 56,
    ),
    "QOrderedMatMul": (call("QOrderedMatMul", [(5, 2, 7), S, (7, 3), S, S], domain=MS), 5 * 42),
    "RouterGateUpProj": (call("RouterGateUpProj", [(2, 5, 16), (16, 4 + 24)], domain=MS), 10 * 16 * 28),
    "TransposeMatMul": (call("TransposeMatMul", [(7, 2), (7, 3)], domain=MS, transA=1), 42),
    "VarlenCausalConvWithState": (call("VarlenCausalConvWithState", [(10, 6), (6, 1, 4)], domain=MS), 10 * 6 * 4),
    "Conv (blocked)": (call("Conv", [(2, 8, 8, 8), (8, 8, 3, 3)], (2, 8, 6, 6), domain=NCHWC), 2 * 8 * 36 * 72),
    "Conv (channels last)": (call("Conv", [(2, 8, 8, 6), (4, 6, 3, 3)], domain=NHWC), 2 * 4 * 36 * 54),
    "ConvTranspose (channels last)": (
        call("ConvTranspose", [(2, 6, 6, 4), (4, 3, 2, 2)], domain=NHWC), 2 * 4 * 36 * 12
    ),
    "QLinearConv (channels last)": (
        call("QLinearConv", [(2, 8, 8, 6), S, S, (4, 6, 3, 3)], domain=NHWC), 2 * 4 * 36 * 54
    ),
    "QLinearConvTranspose": (
        call("QLinearConvTranspose", [(2, 6, 6, 4), S, S, (4, 3, 2, 2)], domain=NHWC), 2 * 4 * 36 * 12
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BY_HAND)
def test_an_operator_is_counted_by_hand(case: str) -> None:
    node, products = BY_HAND[case]
    assert added_up([node]) == MultiplyAdds(products)


def test_every_formula_has_a_count_by_hand() -> None:
    assert {(node.domain, node.op_type) for node, _ in BY_HAND.values()} == set(COUNTED)


@pytest.mark.parametrize("case", BY_HAND)
def test_a_shape_that_is_unknown_is_said(case: str) -> None:
    node, products = BY_HAND[case]
    blind = Call(node.name, node.op_type, node.domain, [o and Operand(None) for o in node.inputs], [None])
    found = added_up([blind])
    assert found.uncounted == f"'node' ({node.op_type})" or products == 0
    assert found.total == 0


def test_every_operator_of_the_schemas_has_a_place_in_the_table() -> None:
    places = {key: (key in COUNTED) + (key in UNCOUNTABLE) + takes_no_products(*key) for key in SCHEMAS}
    assert {key: count for key, count in places.items() if count != 1} == {}


def test_the_table_names_no_operator_that_there_is_not() -> None:
    named = NOTHING.union(HOLDING_GRAPHS, *LEFT_OUT.values())
    assert set(COUNTED) | set(UNCOUNTABLE) <= SCHEMAS
    assert named <= {name for _, name in SCHEMAS}
    assert len(named) == len(NOTHING) + len(HOLDING_GRAPHS) + sum(map(len, LEFT_OUT.values()))


def test_an_operator_that_nobody_knows_is_said() -> None:
    for domain in ("", MS, "my.domain"):
        assert added_up([call("Novel", [(2, 3)], (2, 3), domain)]).uncounted == "'node' (Novel)"


def test_operands_that_contradict_each_other_are_said() -> None:
    for node in (
        call("Conv", [(2, 3, 8, 8), ()]),
        call("MatMul", [(2, 7), (8, 3)], (2, 3)),
        call("Einsum", [(2, 3)], equation="ij,jk->ik"),
    ):
        assert added_up([node]).uncounted == f"'node' ({node.op_type})"


INNER = call("MatMul", [(2, 7), (7, 3)])
COSTLY = call("MatMul", [(2, 7), (7, 4)])


def test_the_costlier_branch_counts_and_what_it_lacks_is_said() -> None:
    branches = [Body([INNER]), Body([COSTLY])]
    held = Call("node", "If", "", [Operand(())], [None], {}, branches)
    assert added_up([held, INNER]) == MultiplyAdds(2 * 7 * 4 + 2 * 7 * 3)
    lost = Call("node", "If", "", [Operand(())], [None], {}, [*branches, Body([call("MatMul", [None, (7, 3)])])])
    assert added_up([lost]).uncounted == "'node' (MatMul)"


@pytest.mark.parametrize("op_type", ["SequenceMap", "BeamSearch", "Loop"])
def test_a_body_that_runs_nobody_knows_how_often_counts_once(op_type: str) -> None:
    domain = MS if op_type == "BeamSearch" else ""
    held = Call("node", op_type, domain, [None, None], [None], {}, [Body([INNER], endless=True)])
    assert added_up([held]) == MultiplyAdds(42, once=f"'node' ({op_type})")
    assert "once" in added_up([held]).notes()[0]
    assert added_up([Call("node", op_type, domain, [None, None], [None], {}, [Body([])])]).notes() == []
