"""Owns the compiled program: made once for a processor, kept in numba's cache, loaded once in a process."""

from __future__ import annotations

from functools import cache
from typing import Any

from epsinas_onnx.evaluate_lumped.fused.installed import is_installed


def machine() -> Any:
    """Return the module `machine`, ready to run; None without numba, or where it does not work.

    Takes seconds the first time on a machine, to compile, and half a second then, once a process.
    """
    return _made_ready()[0]


def failure() -> str:
    """Return why numba, which is installed, is of no use; nothing where it is."""
    return _made_ready()[1] if is_installed() else ""


@cache
def _made_ready() -> tuple[Any, str]:
    if not is_installed():
        return None, ""
    try:
        from numba import config

        if getattr(config, "DISABLE_JIT", False):
            return None, "NUMBA_DISABLE_JIT is set"
        from epsinas_onnx.evaluate_lumped.fused import machine as found

        found.compile_all()
    except Exception as error:  # numba and NumPy must fit each other, and its cache needs a folder that can be written
        return None, " ".join(f"{type(error).__name__}: {error}".split())
    return found, ""
