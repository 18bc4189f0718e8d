"""Owns the tree of modules that names of nodes spell, split at dots and slashes, and the rows to show of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from epsinas_onnx.explanation.result import ExplainedValue, Explanation

_ROWS = 36
"""A tree that nobody asked to be deeper opens no further level that makes it longer than this."""
_SIDE_BY_SIDE = 24
"""A module that holds more has them put together in so many runs of neighbours."""


@dataclass
class Module:
    """One module. path: what names in it begin with. values: those made in it, in graph order."""

    name: str
    path: str
    values: list[ExplainedValue] = field(default_factory=list)
    inner: dict[str, Module] = field(default_factory=dict)
    lost: bool = False
    lost_in_float32: bool = False

    @property
    def nodes(self) -> int:
        """Return how many nodes it has."""
        return len({value.node for value in self.values})

    @property
    def share(self) -> float | None:
        """Return its part of the score, None where there is none."""
        known = [value.share for value in self.values if value.share is not None]
        return sum(known) if known else None

    def magnitudes(self, constant: int) -> list[float | None]:
        """Return log10 of the largest magnitude at each depth, in order; None where nothing was seen."""
        largest: dict[int, float | None] = {}
        for value in self.values:
            seen = value.observed[constant]
            before = largest.setdefault(value.depth, None)
            if seen is not None and seen.magnitude is not None:
                largest[value.depth] = seen.magnitude if before is None else max(before, seen.magnitude)
        return [largest[depth] for depth in sorted(largest)]


@dataclass(frozen=True)
class Branch:
    """A row of the tree: how deep it lies, its module, and whether what is inside of it is shown below."""

    level: int
    module: Module
    opened: bool


def module_tree(found: Explanation) -> Module:
    """Return the root of the tree of nodes; a module that holds one other alone is one with it.

    Of very many side by side, as where names spell no modules, runs of neighbours are put together.
    """
    root = Module("", "")
    lost = None if found.lost is None else found.lost.node
    lost32 = None if found.lost_in_float32 is None else found.lost_in_float32.node
    for value in found.values:
        if not value.node:
            continue
        at, path = root, ""
        marks = value.node == lost, value.node == lost32
        _add(root, value, marks)
        for part in _way(value):
            path += part
            at = at.inner.setdefault(part, Module(part.strip("./") or part, path))
            _add(at, value, marks)
    return _grouped(_joined(root))


def rows(root: Module, levels: int | None = None) -> list[Branch]:
    """Return the rows of a tree down to a level; None opens as many levels as fit, and the way to what is lost."""
    if levels is not None:
        return list(_rows(root, 0, levels, False))
    for levels in range(1, 64):
        shown, deeper = list(_rows(root, 0, levels, True)), list(_rows(root, 0, levels + 1, True))
        if len(deeper) > _ROWS or len(deeper) == len(shown):
            return shown
    return shown


def sampled(series: Sequence[float | None], width: int) -> list[float | None]:
    """Return so many of the numbers at most, evenly spaced from the first to the last."""
    if len(series) <= width:
        return list(series)
    return [series[round(place * (len(series) - 1) / (width - 1))] for place in range(width)]


def magnitude_bounds(values: Iterable[ExplainedValue]) -> tuple[float, float]:
    """Return the least and the largest log10 of a magnitude for either constant; 0 and 0 where there is none."""
    known = [
        seen.magnitude for value in values for seen in value.observed if seen is not None and seen.magnitude is not None
    ]
    return (min(known), max(known)) if known else (0.0, 0.0)


def _add(module: Module, value: ExplainedValue, marks: tuple[bool, bool]) -> None:
    module.values.append(value)
    module.lost, module.lost_in_float32 = module.lost or marks[0], module.lost_in_float32 or marks[1]


def _way(value: ExplainedValue) -> list[str]:
    """Return the modules that lead to a value; those in a body lie below the node that holds it.

    What the names of both begin with is said once.
    """
    way: list[str] = []
    before: list[str] = []
    for name in dict.fromkeys((*value.inside, value.node)):
        parts = _parts(name)
        common = 0
        while common < min(len(parts) - 1, len(before)) and parts[common] == before[common]:
            common += 1
        way += parts[common:]
        before = parts
    return way


def _parts(name: str) -> list[str]:
    """Return the parts of a name, each with the sign in front of it.

    >>> _parts("/encoder/layer.0/Add")
    ['/encoder', '/layer', '.0', '/Add']
    """
    return re.findall(r"[./]*[^./]+|[./]+$", name) or [name]


def _joined(module: Module) -> Module:
    """Return the module with chains of modules that hold one other alone made one, in place."""
    pending = [module]
    while pending:
        at = pending.pop()
        for key, one in list(at.inner.items()):
            while len(one.inner) == 1 and len(one.values) == len(next(iter(one.inner.values())).values):
                (inner,) = one.inner.values()
                one.name, one.path, one.inner = one.name + inner.path[len(one.path) :], inner.path, inner.inner
            at.inner[key] = one
            pending.append(one)
    return module


def _grouped(module: Module) -> Module:
    """Return the module with runs of neighbours put together where it holds too many to look at, in place."""
    pending = [module]
    while pending:
        at = pending.pop()
        if len(at.inner) > _SIDE_BY_SIDE:
            ones = list(at.inner.values())
            size = -(-len(ones) // _SIDE_BY_SIDE)
            runs = [ones[start : start + size] for start in range(0, len(ones), size)]
            at.inner = {str(index): _run(run) for index, run in enumerate(runs)}
        pending += at.inner.values()
    return module


def _run(ones: Sequence[Module]) -> Module:
    if len(ones) == 1:
        return ones[0]
    made = Module(f"{ones[0].name} ... {ones[-1].name}", ones[0].path)
    made.inner = {str(index): one for index, one in enumerate(ones)}
    made.values = [value for one in ones for value in one.values]
    made.lost, made.lost_in_float32 = any(one.lost for one in ones), any(one.lost_in_float32 for one in ones)
    return made


def _rows(module: Module, level: int, levels: int, to_lost: bool) -> Iterator[Branch]:
    pending = [(one, level) for one in reversed(module.inner.values())]
    while pending:
        one, at = pending.pop()
        opened = bool(one.inner) and (at + 1 < levels or (to_lost and (one.lost or one.lost_in_float32)))
        yield Branch(at, one, opened)
        if opened:
            pending += [(inner, at + 1) for inner in reversed(one.inner.values())]
