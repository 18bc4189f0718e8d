"""Owns chains of nodes that run as one compiled program, on values of which nothing is common to the samples."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from epsinas_onnx.evaluate_lumped.fused.compiled import machine
from epsinas_onnx.evaluate_lumped.fused.folding import MOST, folded, split
from epsinas_onnx.evaluate_lumped.fused.layout import Held, Layout, Link
from epsinas_onnx.evaluate_lumped.fused.matrices import shared
from epsinas_onnx.evaluate_lumped.fused.recognise import Code
from epsinas_onnx.evaluate_lumped.kernels.layout import first_behind, first_in_front
from epsinas_onnx.evaluate_lumped.scaled import Array, Floats, Scaled
from epsinas_onnx.evaluate_lumped.value import Value
from epsinas_onnx.lump.value import Tensor

Places: TypeAlias = Mapping[Tensor, int]

_EXPONENTS = 2**58
"""A scale beyond this is left to Python, whose integers have no end."""


class Entry(NamedTuple):
    """A link at which a chain may begin. row: of the table. tensors: the values that are read from there on."""

    link: int
    row: int
    tensors: tuple[Tensor, ...]


class Operands(NamedTuple):
    """What a chain reads. factors, powers: the numbers that it multiplies by, `factors * 2**powers`.

    folded: whether some had a base.
    """

    samples: int
    parts: Sequence[tuple[Held, Scaled]]
    folded: bool
    factors: Floats
    powers: npt.NDArray[np.int64]


class PlainOperands(NamedTuple):
    """The same of plain arrays."""

    samples: int
    arrays: Sequence[tuple[Held, Array]]
    factors: Array


class Chain:
    """Nodes that follow each other. operands: the values that they read and do not make. kept: what is read behind.

    It may begin where operands have no base, as behind a normalisation over samples. A tensor's place is where its
    value lies in the values of a program.
    """

    def __init__(self, links: Sequence[Link], operands: Collection[Tensor], kept: Collection[Tensor]) -> None:
        self._matrices = shared()
        self._layout = Layout(links, operands, self._matrices)
        self._made = [
            (index, link.output, self._layout.values[link.output])
            for index, link in enumerate(links)
            if link.output in kept
        ]
        self._done = [tensor for link in links for tensor in link.done if tensor in operands]
        self._statistics = [
            (link.node.outputs[1:], begin)
            for link, begin in zip(links, self._layout.begins, strict=True)
            if link.operation.code is Code.STANDARDISE
        ]
        self._subtracts = any(link.operation.code is Code.ADD and link.operation.flag for link in links)
        self._links = links
        self._first = Entry(0, 0, tuple(operands))
        self.rows = self._layout.rows
        self._machine = machine()

    def entries(self) -> Iterator[Entry]:
        """Yield the first link, and those behind a normalisation, with what they and all behind them read."""
        yield self._first
        found: list[Entry] = []
        needed: dict[Tensor, None] = {}
        for index in range(len(self._links) - 1, 0, -1):
            link = self._links[index]
            needed.pop(link.output, None)
            needed.update(dict.fromkeys(link.values))
            if self._links[index - 1].operation.code is Code.STANDARDISE:
                found.append(Entry(index, self._layout.begins[index], tuple(needed)))
        yield from reversed(found)

    def _operands(self, entry: Entry, values: Sequence[Any], places: Places) -> Operands | None:
        """Return what is read from an entry on, None where the chain cannot begin there.

        Values must be deviations of as many samples as the others are, factors positive numbers.
        """
        parts: list[tuple[Held, Scaled]] = []
        samples, some_folded = 0, False
        for tensor in entry.tensors:
            value, held = values[places[tensor]], self._layout.values[tensor]
            part = folded(value) if isinstance(value, Value) else None
            if part is None:
                return None
            some_folded |= part is not value.deviation
            if some_folded and self._subtracts:
                return None  # what is common may cancel, and leave what rounding has made of samples
            samples = samples or value.shape[0]
            if not part.array.shape == value.shape == (samples, *held.rest) or abs(part.exponent) > _EXPONENTS:
                return None
            parts.append((held, part))
        factors = np.ones(len(self._layout.numbers))
        powers = np.zeros(len(factors), np.int64)
        for tensor, number in self._layout.numbers.items():
            value = values[places[tensor]]
            base = value.base if isinstance(value, Value) and value.deviation is None else None
            if base is None or base.array.size != 1 or not 0 < (factor := base.array.item()) < math.inf:
                return None
            if abs(base.exponent) * len(self._layout.table) > _EXPONENTS:
                return None
            factors[number], powers[number] = factor * base.mantissa, base.exponent
        return Operands(samples, parts, some_folded, factors, powers)

    def run(self, entry: Entry, values: list[Any], places: Places) -> bool | None:
        """Run from an entry on, and put what is read behind the chain into its places; whether it can begin there.

        None where it can, but not go on: where all samples are the same somewhere, or numbers are not finite.
        """
        operands = self._operands(entry, values, places)
        if operands is None:
            return False
        layout, kept, samples = self._layout, self._matrices, operands.samples
        memory = np.empty(layout.rows * samples)
        mantissas, exponents = np.ones(layout.scales), np.zeros(layout.scales, np.int64)
        ages = np.zeros(layout.scales, np.int64)
        for held, part in operands.parts:
            _rows_in(memory, held, samples)[:] = first_behind(part.array).reshape(-1, samples)
            mantissas[held.scale], exponents[held.scale], ages[held.scale] = part.mantissa, part.exponent, part.age
        stopped = self._machine.run_exactly(
            layout.table, entry.row, samples, memory, mantissas, exponents, ages, operands.factors, operands.powers,
            kept.starts, kept.columns, kept.entries, layout.epsilons, MOST if operands.folded else math.inf,
        )  # fmt: skip
        if stopped != self._machine.DONE:
            return None
        made: dict[Tensor, Value] = {}
        for tensor, held in self._made_from(entry):
            array = _taken(memory, held, samples)
            if not np.isfinite(array).all():
                return None
            scale = float(mantissas[held.scale]), int(exponents[held.scale]), int(ages[held.scale])
            part = Scaled(array, *scale)
            value = split(part) if operands.folded else Value(array.shape, None, part)
            if value is None:
                return None
            made[tensor] = value
        self._put(made, values, places)
        return True

    def _plain_operands(self, entry: Entry, values: Sequence[Any], places: Places) -> PlainOperands | None:
        """Return what is read from an entry on as it stands, None where the chain cannot begin there."""
        arrays: list[tuple[Held, Array]] = []
        samples = 0
        for tensor in entry.tensors:
            value, held = values[places[tensor]], self._layout.values[tensor]
            if getattr(value, "dtype", None) != np.float32 or not value.ndim:
                return None
            samples = samples or len(value)
            if value.shape != (samples, *held.rest):
                return None
            arrays.append((held, value))
        factors = np.ones(len(self._layout.numbers), np.float32)
        for tensor, number in self._layout.numbers.items():
            value = values[places[tensor]]
            if getattr(value, "dtype", None) != np.float32 or value.size != 1:
                return None
            factors[number] = value.item()
        return PlainOperands(samples, arrays, factors)

    def run_plain(self, entry: Entry, values: list[Any], places: Places) -> bool:
        """Do the same in float32 as it stands."""
        operands = self._plain_operands(entry, values, places)
        if operands is None:
            return False
        layout, kept, samples = self._layout, self._matrices, operands.samples
        memory = np.empty(layout.rows * samples, np.float32)
        statistics = np.zeros((2, len(layout.table)), np.float32)
        for held, array in operands.arrays:
            _rows_in(memory, held, samples)[:] = first_behind(array).reshape(-1, samples)
        self._machine.run_plain(
            layout.table, entry.row, samples, memory, operands.factors,
            kept.starts, kept.columns, kept.entries, layout.epsilons, statistics,
        )  # fmt: skip
        made = {tensor: _taken(memory, held, samples) for tensor, held in self._made_from(entry)}
        self._put(made, values, places)
        for tensors, row in self._statistics:
            if row >= entry.row:
                for tensor, number in zip(tensors, statistics[:, row], strict=False):
                    values[places[tensor]] = number.reshape((1,) * len(tensor.dims))
        return True

    def _made_from(self, entry: Entry) -> Iterator[tuple[Tensor, Held]]:
        """Yield what is made from an entry on and read behind the chain; what is in front was made one by one."""
        return ((tensor, held) for index, tensor, held in self._made if index >= entry.link)

    def _put(self, made: Mapping[Tensor, Any], values: list[Any], places: Places) -> None:
        for tensor in self._done:
            values[places[tensor]] = None
        for tensor, value in made.items():
            values[places[tensor]] = value


def _rows_in(memory: Array, held: Held, samples: int) -> Array:
    begin, count = held.block.at, math.prod(held.rest)
    return memory[begin * samples : (begin + count) * samples].reshape(count, samples)


def _taken(memory: Array, held: Held, samples: int) -> Array:
    """Return a copy of a value, with its samples innermost in memory as they lie."""
    return first_in_front(_rows_in(memory, held, samples).copy().reshape(*held.rest, samples))
