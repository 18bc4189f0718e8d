"""Sizes of axes that change together: sums of multiples of widths, and the equations between them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias


@dataclass(frozen=True)
class Term:
    """A multiple of a width, or a number where `width` is None."""

    width: int | None
    factor: Fraction


Form: TypeAlias = tuple[Term, ...]
"""The size of an axis: its terms in the order in which they lie along it, as Concat puts them."""


def number(size: int | Fraction) -> Form:
    """Return a size that never changes."""
    return (Term(None, Fraction(size)),)


def times(form: Form, factor: int | Fraction) -> Form:
    """Return a multiple of a size."""
    return tuple(Term(term.width, term.factor * factor) for term in form)


class Equations:
    """Widths and what was found out about them: which are multiples of others, and which cannot change.

    A width is what one axis of a stored tensor measures, until an equation gives it as a form of other widths.
    """

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.tensors: list[str] = []
        self.ranks: list[int] = []
        self._bound: dict[int, Form] = {}
        self._fixed: set[int] = set()

    def new(self, size: int, tensor: str, rank: int = 1) -> Form:
        """Return the size of an axis of a stored tensor; one entry along an axis is never scaled."""
        if size <= 1:
            return number(size)
        self.sizes.append(size)
        self.tensors.append(tensor)
        self.ranks.append(rank)
        return (Term(len(self.sizes) - 1, Fraction(1)),)

    def resolve(self, form: Form) -> Form:
        """Return a form of widths that no equation gives, numbers beside each other added up."""
        found: list[Term] = []
        for term in form:
            if term.width is None or term.width in self._fixed:
                size = term.factor if term.width is None else term.factor * self.sizes[term.width]
                if found and found[-1].width is None:
                    size += found.pop().factor
                found.append(Term(None, size))
            elif term.width in self._bound:
                root = self.resolve(self._bound[term.width])
                self._bound[term.width] = root
                for part in times(root, term.factor):
                    if part.width is None and found and found[-1].width is None:
                        part = Term(None, part.factor + found.pop().factor)
                    found.append(part)
            else:
                found.append(term)
        return tuple(found)

    def measure(self, form: Form, chosen: Mapping[int, int] | None = None) -> Fraction:
        """Return how long an axis is with the widths in `chosen`, the others as they are in the file."""
        total = Fraction(0)
        for term in self.resolve(form):
            size = 1 if term.width is None else (chosen or {}).get(term.width, self.sizes[term.width])
            total += term.factor * size
        return total

    def is_fixed(self, form: Form) -> bool:
        """Whether a size cannot change."""
        return all(term.width is None for term in self.resolve(form))

    def fix(self, form: Form) -> None:
        """Decide that a size never changes, and so none of the widths that it is made of."""
        for term in self.resolve(form):
            if term.width is not None:
                self._fixed.add(term.width)

    def equal(self, first: Form, second: Form) -> None:
        """Decide that two axes are equally long; where their terms do not match, neither ever changes."""
        first, second = self.resolve(first), self.resolve(second)
        if first == second:
            return
        if self.measure(first) != self.measure(second) or self.is_fixed(first) or self.is_fixed(second):
            self.fix(first)
            self.fix(second)
        elif self._bind(first, second) or self._bind(second, first):
            return
        elif len(first) == len(second) and all(
            self.measure((a,)) == self.measure((b,)) for a, b in zip(first, second, strict=True)
        ):
            for a, b in zip(first, second, strict=True):
                self.equal((a,), (b,))
        else:
            self.fix(first)
            self.fix(second)

    def _bind(self, single: Form, other: Form) -> bool:
        width = single[0].width
        if len(single) != 1 or width is None or any(term.width == width for term in other):
            return False
        if len(other) == 1 and other[0].width is not None and other[0].width > width:
            return False  # the first of the file's widths stands for the others
        self._bound[width] = times(other, 1 / single[0].factor)
        return True

    def steps(self, forms: Iterable[Form]) -> dict[int, int]:
        """Return by how much each free width changes at least, so that every term of all forms stays whole."""
        common: dict[int, int] = {}
        broken: set[int] = set()
        for form in forms:
            for term in self.resolve(form):
                if term.width is None:
                    continue
                size = term.factor * self.sizes[term.width]
                if size.denominator == 1:
                    common[term.width] = math.gcd(common.get(term.width, 0), int(size))
                else:
                    broken.add(term.width)
        return {
            width: self.sizes[width] // shared
            for width, shared in common.items()
            if width not in broken and self.sizes[width] % shared == 0
        }
