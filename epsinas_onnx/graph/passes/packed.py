"""Replaces operators of packed weights by float ones, whose weights have the shapes that the packed ones tell."""

from __future__ import annotations

import onnx_ir as ir

from epsinas_onnx.graph.passes.float_rewriter import Handler, Rewriter
from epsinas_onnx.graph.tensor_summary import find_stored, read


def _dims(value: ir.Value | None) -> tuple[int, ...] | None:
    """Return the shape of a stored tensor; those of computed values were not inferred yet."""
    stored = None if value is None else find_stored(value, ())
    return None if stored is None else stored.dims


def _product(rewriter: Rewriter, node: ir.Node, dims: tuple[int, ...], bits: int, bias: int | None = None) -> None:
    """Replace a product of input 0 with the packed input 1, of the float shape `dims`."""
    x, packed = node.inputs[:2]
    if x is None or packed is None or packed not in rewriter.static or min(dims) < 1:
        return
    added = node.inputs[bias] if bias is not None and bias < len(node.inputs) else None
    weight = rewriter.unpacked(packed, dims, bits)
    rewriter.replace(node, "MatMul", [rewriter.real.get(x, x), weight], bias=added)


def _n_bits(rewriter: Rewriter, node: ir.Node) -> None:
    attributes = node.attributes
    dims = (attributes.get_int("K", 0), attributes.get_int("N", 0))
    _product(rewriter, node, dims, attributes.get_int("bits", 4), bias=5)


def _bnb4(rewriter: Rewriter, node: ir.Node) -> None:
    dims = (node.attributes.get_int("K", 0), node.attributes.get_int("N", 0))
    _product(rewriter, node, dims if node.attributes.get_int("transB", 1) else dims[::-1], 4)


def _fp_q4(rewriter: Rewriter, node: ir.Node) -> None:
    stored = None if node.inputs[2] is None else find_stored(node.inputs[2], ())
    sizes = None if stored is None or stored.data is None else read(stored.data)
    if sizes is not None and sizes.size == 2:
        _product(rewriter, node, (int(sizes.flat[0]), int(sizes.flat[1])), 4)


def _block_product(entries: int) -> Handler:
    """Return what replaces a product with rows of packed columns, `entries` of them in an element."""

    def handle(rewriter: Rewriter, node: ir.Node) -> None:
        dims = _dims(node.inputs[1])
        if dims is not None and len(dims) == 2:
            bias = {1: 4, 2: 5}[entries]
            _product(rewriter, node, (dims[1] * entries, dims[0]), 8 // entries, bias=bias)

    return handle


def _lookup(rewriter: Rewriter, node: ir.Node) -> None:
    """Replace a look-up in a packed table; bytes hold `bits` each along the last axis, other types one entry."""
    table, indices = node.inputs[:2]
    dims = _dims(table)
    if table is None or dims is None or len(dims) != 2 or table not in rewriter.static:
        return
    if node.attributes.get_int("gather_axis", 0) % len(dims):
        return
    bits = node.attributes.get_int("bits", 4)
    stored = find_stored(table, ())
    if stored is not None and stored.dtype == ir.DataType.UINT8:
        dims = (dims[0], dims[1] * (8 // bits))
    rewriter.replace(node, "Gather", [rewriter.unpacked(table, dims, bits), indices])


def _experts(rewriter: Rewriter, node: ir.Node) -> None:
    """Replace experts of packed weights by a MoE of floats; integers are packed along the last axis."""
    slots = [*node.inputs, *[None] * 21][:21]
    if slots[14] is not None or node.attributes.get_string("quant_type", "int") not in ("int", "fp8"):
        return
    inputs: list[ir.Value | None] = [None if value is None else rewriter.real.get(value, value) for value in slots[:2]]
    bits = node.attributes.get_int("expert_weight_bits", 4)
    for packed, bias, override in ((2, 4, "fc1"), (5, 7, "fc2"), (8, 10, "fc3")):
        value = slots[packed]
        if value is None:
            inputs += [None, None]
            continue
        stored = find_stored(value, ())
        if stored is None or stored.dims is None or len(stored.dims) != 3 or value not in rewriter.static:
            return
        own = node.attributes.get_int(f"{override}_expert_weight_bits", bits)
        rows, columns, width = stored.dims
        if stored.dtype == ir.DataType.UINT8:
            width = width * 8 // own
        inputs += [rewriter.unpacked(value, (rows, columns, width), own), slots[bias]]
    rewriter.replace(node, "MoE", inputs, _ROUTING, "com.microsoft")


_ROUTING = (
    "k", "activation_type", "activation_alpha", "activation_beta", "normalize_routing_weights", "use_sparse_mixer",
    "swiglu_fusion", "swiglu_limit", "swiglu_limit_after_activation",
)  # fmt: skip


def _embed(rewriter: Rewriter, node: ir.Node) -> None:
    slots = [*node.inputs, None, None][:8]
    tables = [rewriter.signal(value) for value in slots[2:7]]
    rewriter.replace(
        node, "EmbedLayerNormalization", [*slots[:2], *tables, slots[7]], ("epsilon",), "com.microsoft"
    )  # fmt: skip


UNPACKERS: dict[str, Handler] = {
    "MatMulNBits": _n_bits,
    "MatMulBnb4": _bnb4,
    "MatMulFpQ4": _fp_q4,
    "MatMulBlockQuantizedFp8Weight": _block_product(1),
    "MatMulBlockQuantizedFp4Weight": _block_product(2),
    "GatherBlockQuantized": _lookup,
    "QMoE": _experts,
    "QEmbedLayerNormalization": _embed,
}
"""By operator of com.microsoft; what cannot be told is left as it is.

Source: ONNX Runtime's schemas of its contributed operators.
"""
