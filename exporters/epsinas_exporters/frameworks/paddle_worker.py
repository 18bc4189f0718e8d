"""Runs in Paddle's own environment, from its source text, and writes an ONNX file: nothing of this project is there.

Reads one JSON object from its first argument: network, inputs (name, shape, element type), output.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from pathlib import Path
from typing import Any

OPSET = 17
REFUSED = 4
"""The exit code where the request is at fault, and the message says all."""


class Refused(Exception):
    """What a user should read."""


def main() -> None:
    """Convert what the request names."""
    request = json.loads(sys.argv[1])
    try:
        import paddle
        import paddle2onnx
    except ImportError as error:
        raise Refused(
            f"{sys.executable} lacks {error.name}; run it with -m pip install paddlepaddle paddle2onnx packaging"
        ) from None
    network, output = request["network"], request["output"]
    if Path(network).is_file():
        stored = Path(network).with_suffix(".pdiparams")
        if not stored.is_file():
            raise Refused(f"{network} has no file {stored.name} beside it")
        paddle2onnx.export(network, str(stored), output, opset_version=OPSET)
        return
    layer = found(network)
    if isinstance(layer, type) or not isinstance(layer, paddle.nn.Layer):
        layer = layer()
    if not isinstance(layer, paddle.nn.Layer):
        raise Refused(f"{network} is neither a paddle.nn.Layer nor a function or class that makes one")
    if not request["inputs"]:
        raise Refused(f"{network}: give the shapes of its inputs, batch first, such as --input 1,3,32,32")
    specs = [
        paddle.static.InputSpec([None, *shape[1:]] if len(shape) > 1 else shape, dtype, name or f"input_{index}")
        for index, (name, shape, dtype) in enumerate(request["inputs"])
    ]
    layer.eval()
    paddle.onnx.export(layer, output.removesuffix(".onnx"), input_spec=specs, opset_version=OPSET)


def found(text: str) -> Any:
    """Return what `package.module:attribute` names."""
    source, colon, name = text.rpartition(":")
    if not colon or not source or not name:
        raise Refused(f"{text!r} is no file and names no network; write package.module:factory")
    try:
        found: Any = importlib.import_module(source)
        for part in name.split("."):
            found = getattr(found, part)
    except ImportError as error:
        raise Refused(f"{text}: {error}; run where it can be imported") from None
    except AttributeError:
        raise Refused(f"{text}: {source} has no {name!r}") from None
    return found


if __name__ == "__main__":
    try:
        with contextlib.redirect_stdout(sys.stderr):
            main()
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        print((lines or [type(error).__name__])[-1], end="")
        sys.exit(REFUSED if isinstance(error, Refused) else 1)
