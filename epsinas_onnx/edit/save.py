"""Writes a model into a file."""

from __future__ import annotations

import os
from pathlib import Path

import onnx

from epsinas_onnx.errors import ModelError


def write_model(proto: onnx.ModelProto, output: str | os.PathLike[str] | None) -> None:
    """Write a model into a file where one is named; raises ModelError when that fails."""
    if output is None:
        return
    try:
        Path(output).write_bytes(proto.SerializeToString())
    except OSError as error:
        raise ModelError(f"{os.fspath(output)}: cannot be written: {error.strerror or error}") from None
