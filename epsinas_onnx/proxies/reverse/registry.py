"""Owns what a rule of the reverse pass is, which operators have one, and which have no derivative at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import onnx_ir as ir

from epsinas_onnx.proxies.reverse.call import Call

Gradients: TypeAlias = Mapping[int | ir.Value, ir.Value | None] | ir.Value
"""What a rule returns: gradients by input slot, or of a captured value; or that of input 0 alone. Each has the shape
and the element type of what it belongs to, and one that nobody wants is left out or None."""
Rule: TypeAlias = Callable[[Call], Gradients]

RULES: dict[tuple[str, str], Rule] = {}
DEFINED = "*"
"""The key of the rule for operators that have none of their own."""

NO_DERIVATIVE = frozenset(
    {"ArgMax", "ArgMin", "Bernoulli", "Binarizer", "BitShift", "Ceil", "ConstantOfShape", "DynamicQuantizeLinear",
     "Equal", "EyeLike", "Floor", "Greater", "GreaterOrEqual", "Hardmax", "IsInf", "IsNaN", "Less", "LessOrEqual",
     "Multinomial", "NonMaxSuppression", "NonZero", "Not", "OneHot", "QuantizeLinear", "RandomNormalLike",
     "RandomUniformLike", "Round", "Shape", "Sign", "Size"}
)  # fmt: skip
"""Operators that are constant wherever they can be differentiated, or that make no floats: no path leads through."""


LARGEST = 2**24
"""Entries of the largest weight that is laid out anew ahead of a run, and so stored twice."""


def rule(*op_types: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Register a function as the rule of operators."""

    def register(function: Rule) -> Rule:
        for op_type in op_types:
            key = (domain, op_type)
            assert key not in RULES, f"{op_type} has two rules"
            RULES[key] = function
        return function

    return register


def find_rule(node: ir.Node) -> Rule:
    """Return the rule of a node; where it has none of its own, the one that looks for a definition by others."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    return RULES.get((domain, node.op_type)) or RULES["", DEFINED]
