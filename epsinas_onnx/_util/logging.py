"""Keeps the libraries' own log lines off a user's terminal; what is wrong is said in a sentence of ours."""

from __future__ import annotations

import logging


def quiet_libraries() -> None:
    """Silence the loggers of the libraries that read foreign graphs; for programs, not for importers of the package."""
    for name in ("onnx_ir", "onnx"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
