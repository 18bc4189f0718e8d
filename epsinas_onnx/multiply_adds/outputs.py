"""Finds the shape of the first output of ONNX Runtime's own operators, which ONNX's inference does not know."""

from __future__ import annotations

from epsinas_onnx.multiply_adds.call import Call, Dims, Uncountable
from epsinas_onnx.multiply_adds.linear import convolved, multiplied

_LIKE_FIRST = frozenset(
    """BiasAdd BiasDropout BiasGelu BiasSoftmax BitmaskBiasDropout BitmaskDropout BranchwiseRMSNorm CausalConvWithState
    DequantizeLinear EngramGate FastGelu GatedRMSNorm Gelu GroupNorm HyperConnectionPostMix MoE MoEPacked QMoE
    QuantizeLinear QuickGelu RotaryEmbedding ScaledSiLU SkipGroupNorm SkipLayerNormalization
    SkipSimplifiedLayerNormalization VarlenCausalConvWithState""".split()  # noqa: SIM905 (a list is four times as long)
)
_FEATURES_OF_N = frozenset({"MatMulNBits", "MatMulNBitsMlp", "MatMulNBitsQLoRA", "MatMulPacked"})
_WITH_PROJECTION = frozenset({"Attention", "DecoderMaskedSelfAttention", "PackedAttention", "QAttention"})
_CHANNELS_LAST = frozenset({"NhwcConv", "NhwcFusedConv"})
_MATRICES = frozenset(
    {"DynamicQuantizeMatMul", "FusedMatMul", "FusedMatMulActivation", "GemmFastGelu", "MatMulIntegerToFloat",
     "TransposeMatMul"}
)  # fmt: skip


def contributed_shape(call: Call) -> Dims | None:
    """Return the shape of the first output, None where it does not follow from the operands' or is not known here."""
    if call.domain != "com.microsoft":
        return None
    try:
        return _shape(call)
    except (Uncountable, ArithmeticError, LookupError, TypeError, ValueError):
        return None


def _shape(call: Call) -> Dims | None:
    if call.op_type in _LIKE_FIRST:
        return call.dims(0)
    if call.op_type in _FEATURES_OF_N or (call.op_type == "MatMulBnb4" and call.integer("transB", 1)):
        return (*call.dims(0)[:-1], call.required("N"))
    if call.op_type in _MATRICES:
        return multiplied(call)
    if call.op_type in _CHANNELS_LAST or call.op_type == "FusedConv":
        return convolved(call, last=call.op_type != "FusedConv")
    if call.op_type == "FusedGemm":
        a, b = call.dims(0, 2), call.dims(1, 2)
        return a[call.integer("transA", 0)], b[1 - call.integer("transB", 0)]
    if call.op_type in _WITH_PROJECTION:
        sizes = call.attributes.get("qkv_hidden_sizes")
        return (*call.dims(0)[:-1], int(sizes[2]) if sizes else call.dims(1, 2)[1] // 3)
    if call.op_type in ("MultiHeadAttention", "DecoderMaskedMultiHeadAttention"):
        return _of_heads(call)
    if call.op_type == "GroupQueryAttention":
        query, heads = call.dims(0, 3), call.required("num_heads")
        packed = heads + 2 * call.required("kv_num_heads")
        return query if call.has(1) else (*query[:2], query[2] // packed * heads)
    return None


def _of_heads(call: Call) -> Dims:
    query = call.dims(0)
    if len(query) == 5:
        return (*query[:2], query[2] * query[4])
    if call.has(2):
        value = call.dims(2)
        return (*query[:2], value[1] * value[3] if len(value) == 4 else value[2])
    if call.has(1):  # keys and values in one tensor, of as many features as the queries
        return query
    return (*query[:2], query[2] // 3)
