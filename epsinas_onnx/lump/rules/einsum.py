"""Rule of Einsum: operand by operand, each step a sum over labels that end there and a matrix product of the rest."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from epsinas_onnx.lump import partition
from epsinas_onnx.lump.context import Context
from epsinas_onnx.lump.partition import Partition
from epsinas_onnx.lump.registry import Operands, rule
from epsinas_onnx.lump.rules import matmul
from epsinas_onnx.lump.rules.layout import permuted, relabelled
from epsinas_onnx.lump.step import Step
from epsinas_onnx.lump.value import Lumped, Parts


@dataclass(frozen=True)
class _Labelled:
    """A value with one label an axis; axes that an ellipsis stands for are labelled `.0`, `.1` from the last on."""

    value: Lumped
    labels: tuple[str, ...]

    def part(self, label: str) -> Partition:
        return self.value.axes[self.labels.index(label)]


@rule("Einsum")
def einsum(context: Context, step: Step, operands: Operands) -> Lumped | None:
    """Sum over all labels but the output's of the product of all operands.

    Sums may be taken one after the other, so operands are joined from the left, and a label ends where no later operand
    and not the output has it. The classes of a label are those of a matrix product's axis: joined where both operands
    have it, and weighted by their sizes where it ends.
    """
    values = [operand for operand in operands if operand is not None]
    parsed = parse(step.text("equation", ""), [value.rank for value in values])
    if parsed is None or any(0 in value.shape for value in values):
        return None
    terms, output = parsed
    labelled = _without_stretched(context, [_Labelled(value, term) for value, term in zip(values, terms, strict=True)])
    result = _summed(context, labelled[0], {*output, *(label for term in labelled[1:] for label in term.labels)})
    for index, other in enumerate(labelled[1:], start=1):
        later = {*output, *(label for term in labelled[index + 1 :] for label in term.labels)}
        other = _summed(context, other, {*later, *result.labels})
        result = _summed(context, result, {*later, *other.labels})
        result = _joined(context, result, other, later)
    return _ordered(context, result, output).value


def parse(equation: str, ranks: Sequence[int]) -> tuple[list[tuple[str, ...]], tuple[str, ...]] | None:
    """Return the labels of each operand and of the output.

    None for a diagonal (a label twice in one operand), and for an ellipsis that the output lacks, which ONNX Runtime
    refuses. Without an arrow the output has the axes of the ellipsis, and then the labels that occur once, in
    alphabetical order (ONNX Einsum).
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    texts = left.split(",")
    free = [rank - len(text.replace("...", "")) for text, rank in zip(texts, ranks, strict=True)]
    terms = [_labels(text, rank) for text, rank in zip(texts, free, strict=True)]
    if not arrow:
        letters = left.replace("...", "").replace(",", "")
        right = ("..." if "..." in left else "") + "".join(sorted(c for c in letters if letters.count(c) == 1))
    output = _labels(right, max(free))
    if any(len(set(term)) != len(term) for term in [*terms, output]) or ("..." in left) != ("..." in right):
        return None
    if any(len(term) != rank for term, rank in zip(terms, ranks, strict=True)):
        return None
    return terms, output


def _labels(text: str, free: int) -> tuple[str, ...]:
    front, dots, behind = text.partition("...")
    return (*front, *(f".{index}" for index in reversed(range(free)) if dots), *behind)


def _without_stretched(context: Context, terms: Sequence[_Labelled]) -> list[_Labelled]:
    """Drop axes of size 1 whose label is longer, or occurs, elsewhere: such an axis is broadcast."""
    kept: list[_Labelled] = []
    seen: set[str] = set()
    for term in terms:
        axes = []
        for axis, label in enumerate(term.labels):
            longer = any(label in other.labels and other.part(label).size != 1 for other in terms)
            if term.value.shape[axis] != 1 or (not longer and label not in seen):
                axes.append(axis)
                seen.add(label)
        kept.append(_only(context, term, axes))
    return kept


def _only(context: Context, term: _Labelled, axes: Sequence[int]) -> _Labelled:
    """Drop all axes but some; those that go have size 1."""
    if len(axes) == len(term.labels):
        return term
    value = relabelled(context, term.value, tuple(term.value.axes[axis] for axis in axes))
    return _Labelled(value, tuple(term.labels[axis] for axis in axes))


def _summed(context: Context, term: _Labelled, needed: Collection[str]) -> _Labelled:
    """Sum over the labels that nothing else needs."""
    axes = [axis for axis, label in enumerate(term.labels) if label not in needed]
    if not axes:
        return term
    kept = [axis for axis in range(term.value.rank) if axis not in axes]
    return _only(context, _Labelled(context.total(term.value, axes), term.labels), kept)


def _joined(context: Context, a: _Labelled, b: _Labelled, later: Collection[str]) -> _Labelled:
    """Multiply two operands, and sum over the labels that both have and nothing later needs.

    Labels of both that stay are batch axes of a matrix product, those of one operand alone are merged into its rows or
    columns. No sum goes over rows and columns, so each of their classes may pass for an index of its own.
    """
    both = [label for label in a.labels if label in b.labels]
    batch = [label for label in both if label in later]
    shared = [label for label in both if label not in later]
    rows = [label for label in a.labels if label not in both]
    columns = [label for label in b.labels if label not in both]
    left, right = _ordered(context, a, [*batch, *rows, *shared]), _ordered(context, b, [*batch, *shared, *columns])
    count, size = len(batch), len(shared)
    x, y = left.value.axes, right.value.axes
    ended_x, ended_y = (partition.product(parts) for parts in (x[len(x) - size :], y[count : count + size]))
    product = matmul.product(
        context,
        relabelled(context, left.value, (*x[:count], _carried(x[count : len(x) - size]), ended_x)),
        relabelled(context, right.value, (*y[:count], ended_y, _carried(y[count + size :]))),
    )
    parts = (*product.axes[:count], *x[count : len(x) - size], *y[count + size :])
    return _Labelled(relabelled(context, product, parts), (*batch, *rows, *columns))


def _carried(parts: Parts) -> Partition:
    return Partition.discrete(math.prod(part.count for part in parts))


def _ordered(context: Context, term: _Labelled, labels: Sequence[str]) -> _Labelled:
    order = [term.labels.index(label) for label in labels]
    if order == list(range(term.value.rank)):
        return term
    return _Labelled(permuted(context, term.value, order), tuple(labels))
