"""Marks the tensors of packed weights, and remembers which float values they became."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from epsinas_onnx.graph.operators import Part

UNPACKED = "epsinas.unpacked"
"""Marks (in a value's `meta`) a float tensor that stands for a packed one, so that it has no values to keep."""
CALIBRATED = "epsinas.calibrated"
"""Marks (in a value's `meta`) what activations are quantised by, which is no part of a weight."""
_STANDS_FOR = "epsinas.stands_for"


@dataclass(frozen=True)
class Unpacked:
    """The float value that a packed tensor became, by name.

    bits: of an entry of the packed one. part: what the tensor that became it, or belongs to it, is.
    """

    name: str
    bits: int
    part: Part = Part.PACKED

    def note(self, value: ir.Value) -> None:
        """Remember that a stored tensor became this value, or belongs to it."""
        known = value.meta.setdefault(_STANDS_FOR, [])
        if self not in known:
            known.append(self)


def stands_for(value: ir.Value) -> Sequence[Unpacked]:
    """Return the float values that a stored tensor became, or belongs to."""
    found: Sequence[Unpacked] = value.meta.get(_STANDS_FOR, ())
    return found
