"""Writes Paddle's networks as graphs without weights, by paddle2onnx in an environment of its own.

paddle2onnx needs an onnx older than ours, so the two never meet: a process of the interpreter that has Paddle writes
the ONNX file, and this module reads it.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnx_ir as ir

from epsinas_exporters.frameworks import ExportError, Input, Request
from epsinas_exporters.frameworks.common import without_weights
from epsinas_exporters.frameworks.paddle_worker import REFUSED

_WORKER = Path(__file__).with_name("paddle_worker.py")
_HINT = (
    "paddle2onnx needs an older onnx than epsinas-onnx, so give it an environment of its own: python3 -m venv "
    "paddle-env && paddle-env/bin/pip install paddlepaddle paddle2onnx packaging, and then --python "
    "paddle-env/bin/python"
)


def export_network(
    network: str, inputs: Sequence[Input] = (), *, python: str | None = None, name: str | None = None
) -> ir.Model:
    """Return a network of Paddle as a graph without weights, in evaluation mode and with a free batch.

    network: `package.module:attribute`, a `paddle.nn.Layer` or what makes one, or an inference model's `.json` or
    `.pdmodel` with its `.pdiparams` beside it. inputs: with the batch in front; an inference model knows its own.
    python: the interpreter with paddlepaddle and paddle2onnx; this one by default. name: of the graph, for reports.

    Raises ExportError where the interpreter lacks Paddle, or Paddle cannot export the network.
    """
    label = name or network.rpartition(":")[2]
    if python is None and importlib.util.find_spec("paddle2onnx") is None:
        raise ExportError(f"{label}: {_HINT}")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "model.onnx"
        request = {
            "network": network, "output": str(output), "inputs": [(one.name, one.shape, one.dtype) for one in inputs]
        }  # fmt: skip
        command = [python or sys.executable, "-c", _WORKER.read_text(encoding="utf-8"), json.dumps(request)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise ExportError(f"{label}: {python} cannot be run: {error.strerror or error}") from None
        if done.returncode or not output.is_file():
            said = done.stdout.strip() or next(reversed(done.stderr.strip().splitlines()), "no message")
            if done.returncode == REFUSED:
                raise ExportError(said)
            raise ExportError(f"{label} cannot be exported: {said}")
        return without_weights(onnx.load(output), label)


def export_named(request: Request) -> ir.Model:
    """Export what the request names, by the interpreter that it names."""
    stem = Path(request.network).stem if Path(request.network).is_file() else None
    return export_network(request.network, request.inputs, python=request.python, name=stem)
