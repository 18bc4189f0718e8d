"""Small models as text, and the command line in this process or in a new one."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser

from epsinas_onnx.cli.main import main

PERCEPTRON = (
    "(float[N,3] x) => (float[N,2] y) { [first] h = MatMul(x, W)  [act] r = Tanh(h)  [last] y = Gemm(r, V, B) }"
)
"""Scores with the default constants, differently with another activation."""


def build(
    graph: str, opset: int = 21, functions: str = "", **tensors: tuple[int, ...] | npt.NDArray[Any]
) -> onnx.ModelProto:
    """Parse `inputs => outputs { nodes }`; `tensors` become initializers, random ones where only a shape is given.

    functions: model-local functions of the domain `local`, in the same syntax. The domain `my.domain` is custom.
    """
    imports = [f'"" : {opset}']
    imports += ['"local" : 1'] if functions else []
    imports += ['"my.domain" : 1'] if "my.domain" in graph else []
    head = f"<ir_version: {3 if opset < 9 else 8 if opset < 21 else 10}, opset_import: [{', '.join(imports)}]>"
    proto = onnx.parser.parse_model(f"{head} g {graph} {functions}")
    rng = np.random.default_rng(7)
    for name, given in tensors.items():
        array = rng.standard_normal(given).astype(np.float32) if isinstance(given, tuple) else given
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        if proto.ir_version < 4:  # such files list every initializer as an input too
            dtype = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            proto.graph.input.append(onnx.helper.make_tensor_value_info(name, dtype, array.shape))
    return proto


def perceptron(activation: str = "Tanh", width: int = 4) -> onnx.ModelProto:
    return build(PERCEPTRON.replace("Tanh", activation), W=(3, width), V=(width, 2), B=(2,))


def external(proto: onnx.ModelProto, location: str, **dims: tuple[int, ...]) -> onnx.ModelProto:
    """Add float initializers whose data is in the file `location`."""
    for name, shape in dims.items():
        tensor = proto.graph.initializer.add(
            name=name, data_type=onnx.TensorProto.FLOAT, dims=shape, data_location=onnx.TensorProto.EXTERNAL
        )
        tensor.external_data.add(key="location", value=location)
    return proto


def save(proto: onnx.ModelProto, path: Path) -> str:
    """Write the model alone, whatever data file it names, and return its path as the command line takes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(proto.SerializeToString())
    return str(path)


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


def command(*args: str, stdin: str = "") -> Done:
    """Run the program in this process."""
    out, err = io.StringIO(), io.StringIO()
    argv, source = mock.patch.object(sys, "argv", ["epsinas-onnx", *args]), mock.patch("sys.stdin", io.StringIO(stdin))
    with argv, source, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Done(code, out.getvalue(), err.getvalue())


def new_process(*args: str, stdin: str = "", **variables: str) -> Done:
    """Run the program in a new process, its output into pipes."""
    inherited = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
    done = subprocess.run(
        [sys.executable, "-m", "epsinas_onnx", *args],
        input=stdin, capture_output=True, text=True, check=False, env={**inherited, **variables},
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)
