"""Owns which nodes are like an earlier one, so that what a rule did to that is done again without the rule."""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache

import onnx_ir as ir

from epsinas_onnx.lump.context import Context
from epsinas_onnx.lump.graph import told_apart
from epsinas_onnx.lump.recipe import Recipe
from epsinas_onnx.lump.recording import Recording, is_plain
from epsinas_onnx.lump.registry import Operands, Outcome, Rule
from epsinas_onnx.lump.step import Step, Target
from epsinas_onnx.lump.value import Lumped, Tensor

_MOST = 2048
"""Recipes that are kept for one target, after which it begins anew; a space of networks has some hundreds."""
_MOST_ENTRIES = 2**20
"""Entries of the axes, as far as their classes are told apart, of all those; some bytes each are kept with them."""
_KNOWN = 16
"""Entries of the largest known operand by which nodes are compared."""


class _Unlike(Exception):
    """Raised for a node that is like no other."""


class Recipes:
    """Recipes by what their nodes have in common; few enough that nobody notices what they hold."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Recipe] = {}
        self._entries = 0
        self.get = self._known.get

    def __len__(self) -> int:
        return len(self._known)

    def keep(self, key: Hashable, recipe: Recipe, entries: int) -> None:
        """Keep one, with the entries of the axes in it and its key; without the others if they are too much."""
        if entries > _MOST_ENTRIES:
            return
        if len(self._known) >= _MOST or self._entries + entries > _MOST_ENTRIES:
            self._known.clear()
            self._entries = 0
        self._known[key] = recipe
        self._entries += entries


class Repeats:
    """Applies rules to nodes, or does what they did to one like it, in whatever graph.

    Two nodes are alike if they have the same operator and attributes, and nothing that such a rule looks at
    (`Registered.repeats`) tells their operands apart.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._recipes = _recipes(context.target, tuple(sorted(context.graph.imports.items())))

    def outcome(self, rule: Rule, step: Step, operands: Operands) -> Outcome:
        """Return what a rule makes of a node; raises what it does."""
        context, recipes = self._context, self._recipes
        try:
            key = self._key(step, operands)
        except _Unlike:
            return rule(context, step, operands)
        known = recipes.get(key)
        if known is not None:
            return known.again(context, operands)
        with Recording(context, operands) as recording:
            made = rule(context, step, operands)
        recipe = recording.recipe(made)
        if recipe is not None:
            recipes.keep(key, recipe, sum(_entries(value) for value in (*operands, made)))
        return made

    def _key(self, step: Step, operands: Operands) -> Hashable:
        node, context = step.node, self._context
        if len(node.outputs) != 1:
            raise _Unlike
        tensors: dict[Tensor, int] = {}
        return (
            node.domain, node.op_type, tuple([(name, _plain(value)) for name, value in node.attributes.data.items()]),
            tuple([self._form(operand, tensors) for operand in operands]), step.out_shape(), step.out_dtype(),
            context.doubtful, context.graph.in_body,
        )  # fmt: skip

    def _form(self, operand: Lumped | None, tensors: dict[Tensor, int]) -> Hashable:
        """Return what an operand is, but for its numbers; tensors: those of the operands before, by number."""
        if operand is None:
            return None
        tensor, known, graph = operand.tensor, operand.known, self._context.graph
        if operand.table is not None or operand.parts is None or (known is not None and known.size > _KNOWN):
            raise _Unlike
        lies: Hashable = None
        if tensor is not None:  # what is stored, or made of the constants, is laid out anew without a node
            made = tensor in graph.initializers, tensor in graph.derived
            lies = tensors.setdefault(tensor, len(tensors)), tensor.shape, tensor.dtype, made
        numbers = None if known is None else (known.dtype, known.shape, known.tobytes())
        return (
            operand.parts, operand.dtype, told_apart(operand.factor), operand.weighted, operand.varied, operand.depends,
            operand.zero, operand.cause is None, lies, numbers,
        )  # fmt: skip


def _plain(attribute: ir.Attr) -> Hashable:
    """Return the value of an attribute that holds numbers or text alone, with its type, since 1 equals 1.0."""
    value = attribute.value
    if not is_plain(value):
        raise _Unlike
    return attribute.type, told_apart(value)


def _entries(value: Outcome) -> int:
    if not isinstance(value, Lumped) or value.parts is None:
        return 0
    return sum(part.size for part in value.parts if not part.is_one)


@lru_cache(maxsize=16)
def _recipes(target: Target, imports: tuple[tuple[str, int], ...]) -> Recipes:
    return Recipes()
