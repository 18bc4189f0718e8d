"""Finds stored tensors at operators that nobody judged, which may be weights and may be none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from epsinas_onnx._util.text import NAMED
from epsinas_onnx.graph.operators import COMPILED, OPERATORS

_FEWEST = 16
"""Entries from which a tensor is no setting of an operator."""
_LONGEST_TEXT = 4096
"""Bytes from which a text is no setting, but a file of its own."""
_NEVER_WEIGHTS = frozenset(
    {ir.DataType.INT64, ir.DataType.UINT64, ir.DataType.BOOL, ir.DataType.STRING, ir.DataType.COMPLEX64,
     ir.DataType.COMPLEX128, ir.DataType.UNDEFINED}
)  # fmt: skip


@dataclass(frozen=True)
class Unjudged:
    """A stored tensor, or an attribute, of an operator that nobody judged.

    slot: the input, or the name of the attribute. what: the tensor in words, None for an attribute.
    """

    node: ir.Node
    slot: int | str
    what: str | None

    @property
    def place(self) -> str:
        """Return `NODE:SLOT`, which is how `--role` names this tensor."""
        return f"{self.node.name}:{self.slot}"

    @property
    def text(self) -> str:
        """Return what is where, as part of a sentence."""
        where = f"{self.node.domain or 'ai.onnx'}::{self.node.op_type} {str(self.node.name)!r}"
        return (
            f"attribute {self.slot!r} of {where}" if self.what is None else f"{self.what}, input {self.slot} of {where}"
        )


def unjudged_operand(node: ir.Node, slot: int, stored: Sequence[ir.Value]) -> Iterator[Unjudged]:
    """Yield the tensors that an operand is made of and that may be weights: floats or small integers, a few or more."""
    for value in stored:
        tensor = _tensor(value)
        if tensor is not None and tensor.dtype not in _NEVER_WEIGHTS and tensor.size >= _FEWEST:
            yield Unjudged(node, slot, f"{value.name!r} {list(tensor.shape.numpy())}")


def stored_attributes(node: ir.Node) -> Iterator[Unjudged]:
    """Yield the attributes that may hold weights, of an operator that nobody judged or that a compiler wrote."""
    key = (node.domain, node.op_type)
    if key in OPERATORS and key not in COMPILED:
        return
    for name, attribute in node.attributes.items():
        if not attribute.is_ref() and _may_hold_weights(attribute):
            yield Unjudged(node, name, None)


def _may_hold_weights(attribute: ir.Attr) -> bool:
    match attribute.type:
        case ir.AttributeType.TENSOR:
            return attribute.value.dtype not in _NEVER_WEIGHTS and attribute.value.size >= _FEWEST
        case ir.AttributeType.TENSORS:
            return any(one.dtype not in _NEVER_WEIGHTS and one.size >= _FEWEST for one in attribute.value)
        case ir.AttributeType.FLOATS:
            return len(attribute.value) >= _FEWEST
        case ir.AttributeType.STRING:
            return len(attribute.value) >= _LONGEST_TEXT
    return False


def _tensor(value: ir.Value) -> ir.TensorProtocol | None:
    """Return what is stored, None where a node repeats one number."""
    if value.producer() is None:
        return value.const_value
    try:
        return ir.convenience.get_const_tensor(value)
    except ValueError:  # a Constant without a value, or with two
        return None


def unjudged_text(unjudged: Sequence[Unjudged]) -> str:
    """Return what nobody judged and how to, as the end of a sentence."""
    shown = "; ".join(found.text for found in unjudged[:NAMED])
    more = f", and {len(unjudged) - NAMED} more" if len(unjudged) > NAMED else ""
    return f"{shown}{more}"
