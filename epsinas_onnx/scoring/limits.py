"""What one model may take before its worker process is ended: seconds, and memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from epsinas_onnx.errors import UsageError

DEFAULT_TIMEOUT: float = 3600
"""Seconds that the command line gives a model: the slowest of docs/real-models.md takes seconds, the largest networks
that were tried take minutes at a batch of 256, and what takes an hour hardly ends at all."""


@dataclass(frozen=True)
class Limits:
    """Limits of one model, 0 for none. timeout: seconds. memory: GB (10^9 bytes) that its worker process holds."""

    timeout: float = 0.0
    memory: float = 0.0

    def __post_init__(self) -> None:
        for name, value, unit in (("timeout", self.timeout, "seconds"), ("memory", self.memory, "GB")):
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"the {name} is a number of {unit}, 0 for none, not {value:g}")

    @property
    def bytes(self) -> int:
        """The memory in bytes."""
        return int(self.memory * 1e9)

    def too_slow(self) -> str:
        """Return the sentence about a model that took too long."""
        return f"took longer than {self.timeout:g} s and was stopped; --timeout gives a model more, or 0 for no limit"

    def too_large(self) -> str:
        """Return the sentence about a model that took too much memory."""
        return (
            f"needed more than {self.memory:g} GB of memory and was stopped; --memory gives a model more, a smaller "
            f"--batch or another --shape needs less"
        )


NO_LIMITS = Limits()
