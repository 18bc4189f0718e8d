"""Writes a node's attributes so that an attribute that is left out and its default read the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from epsinas_onnx.graph.tensor_summary import tensor_text

_REFERENCE = 21
"""The operator set whose defaults are left out; a fixed one, so that no release of onnx changes a fingerprint."""
_LONGEST = 64
"""Entries of the longest list that is written out; a longer one is written as a digest."""
_WINDOWED = frozenset({"Conv", "ConvTranspose", "DeformConv", "MaxPool", "AveragePool", "LpPool"})
_NEUTRAL = {"strides": 1, "dilations": 1, "pads": 0, "output_padding": 0}
"""What the specification says of windows that leave an attribute out; the schemas do not hold it."""


def attribute_texts(
    node: ir.Node, imports: Mapping[str, int], weight: Sequence[int] | None
) -> tuple[tuple[str, str], ...]:
    """Return the attributes of a node by name, graphs aside, without those that say what leaving them out says.

    Defaults are those of one operator set, so that one which another operator set changed is written out.
    weight: the shape of operand 1 where it is stored, which the kernel_shape of a convolution repeats.
    """
    own = {
        name: f"@{attribute.ref_attr_name}" if attribute.is_ref() else _text(attribute.value)
        for name, attribute in node.attributes.items()
        if attribute.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    }
    ours = _defaults(node.op_type, node.domain, imports.get(node.domain, 0))
    usual = _defaults(node.op_type, node.domain, _REFERENCE)
    texts = {name: text for name, text in {**ours, **own}.items() if usual.get(name, ours.get(name)) != text}
    if node.domain == "" and node.op_type in _WINDOWED:
        for name, neutral in _NEUTRAL.items():
            attribute = node.attributes.get(name)
            if attribute is not None and not attribute.is_ref() and set(attribute.as_ints()) <= {neutral}:
                texts.pop(name, None)
        if weight is not None and texts.get("kernel_shape") == _text(list(weight[2:])):
            del texts["kernel_shape"]
    return tuple(sorted(texts.items()))


@lru_cache(maxsize=4096)
def _schema(op_type: str, domain: str, version: int) -> onnx.defs.OpSchema | None:
    """Return what onnx knows of an operator, in its newest form for version 0; None for an unknown one."""
    try:
        return onnx.defs.get_schema(op_type, version or onnx.defs.onnx_opset_version(), domain)
    except onnx.defs.SchemaError:
        return None


@lru_cache(maxsize=4096)
def _defaults(op_type: str, domain: str, version: int) -> Mapping[str, str]:
    schema = _schema(op_type, domain, version)
    return {
        name: _text(onnx.helper.get_attribute_value(attribute.default_value))
        for name, attribute in (schema.attributes.items() if schema is not None else ())
        if attribute.default_value.type
    }


def counts_outputs(node: ir.Node) -> bool:
    """Whether how many outputs a node has says what it does, as for Split; unknown operators may be such."""
    schema = _schema(node.op_type, node.domain, 0)
    variadic = onnx.defs.OpSchema.FormalParameterOption.Variadic
    return schema is None or any(output.option == variadic for output in schema.outputs)


def _text(value: Any) -> str:
    if isinstance(value, (str, bytes)):
        return repr(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)
    if isinstance(value, float):
        with np.errstate(over="ignore"):
            return str(np.float32(value))
    if isinstance(value, (list, tuple)):
        text = f"[{','.join(map(_text, value))}]"
        return text if len(value) <= _LONGEST else f"{len(value)} entries, {_digest(text)}"
    return tensor_text(value) if hasattr(value, "dtype") else str(value)  # asking for the protocol is slow


def _digest(text: str) -> str:
    return f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"
