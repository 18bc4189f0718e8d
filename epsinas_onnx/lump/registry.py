"""Owns what a rule is, and how a module of `lump.rules` registers its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from epsinas_onnx.lump.context import Context
from epsinas_onnx.lump.step import Step
from epsinas_onnx.lump.value import Lumped

Operands: TypeAlias = Sequence[Lumped | None]
Outcome: TypeAlias = Lumped | Sequence[Lumped | None] | None
"""A rule returns its output, or all of them in order, or None where it does not apply: then the operator is run as it
is, on expanded operands."""
Rule: TypeAlias = Callable[[Context, Step, Operands], Outcome]


@dataclass(frozen=True)
class Registered:
    """A rule. scaled: whether it takes operands with a pending factor, because it hands it on or normalises.

    What multiplies by a weight does not: factors that gather over many layers would leave tensors behind that underflow
    where their values do not.

    repeats: whether what it does follows from the node's operator, attributes and inferred output alone, and from its
    operands' partitions, types, factors, shapes of tensors, known numbers, and what they depend on (`lump.repeats`).
    """

    function: Rule
    scaled: bool
    repeats: bool


RULES: dict[tuple[str, str], Registered] = {}


def rule(*op_types: str, domain: str = "", scaled: bool = False, repeats: bool = False) -> Callable[[Rule], Rule]:
    """Register a function as the rule of operators; its operands have known shapes and, unless `scaled`, no factors."""

    def register(function: Rule) -> Rule:
        for op_type in op_types:
            key = (domain, op_type)
            assert key not in RULES, f"{op_type} has two rules"
            RULES[key] = Registered(function, scaled, repeats)
        return function

    return register
