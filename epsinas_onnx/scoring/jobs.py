"""Decides how many worker processes score at a time."""

from __future__ import annotations

from collections.abc import Sized
from typing import TYPE_CHECKING, Literal, TypeAlias

from epsinas_onnx._util.memory import available_bytes
from epsinas_onnx.errors import UsageError
from epsinas_onnx.runtime.cores import usable_cores

if TYPE_CHECKING:
    from epsinas_onnx.scoring.options import ProviderName

Jobs: TypeAlias = int | Literal["auto"]
"""How many worker processes score at a time: a number from 1, or `auto`."""

_FEW = 4
"""Fewer models than this are scored one after the other, each on all cores: processes take as long to start."""

_BYTES = 2**30
"""What a worker process may come to hold before it is replaced."""


def choose_jobs(wanted: Jobs, models: object, provider: ProviderName = "auto") -> int:
    """Return a number of worker processes; raises UsageError for what is none.

    `auto` is one for each core that this process may use, as far as memory reaches, and one alone for few models, or
    where a GPU was named, which processes would share. models: what is scored, asked for its length if it has one.
    """
    if wanted == "auto":
        count = len(models) if isinstance(models, Sized) else None
        if provider not in ("auto", "cpu") or (count is not None and count < _FEW):
            return 1
        return max(1, min(usable_cores(), available_bytes() // _BYTES, *([] if count is None else [count])))
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
        raise UsageError(f"the number of jobs is a whole number from 1, or auto, not {wanted!r}")
    return wanted
