"""`epsinas-onnx export FRAMEWORK`: a network of a training framework as an ONNX file without weights."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from epsinas_onnx._util.install import pip_install
from epsinas_onnx.cli.common import parse_pairs, say
from epsinas_onnx.cli.outputs import check_outputs
from epsinas_onnx.errors import UsageError

if TYPE_CHECKING:
    from epsinas_exporters.frameworks import Input


def export_network(
    kind: str, names: Sequence[str], output: Path, *, inputs: Sequence[str], sizes: Sequence[str], python: str | None
) -> None:
    """Write one network; raises UsageError where the words, the framework or the network are wrong."""
    from epsinas_exporters.frameworks import KINDS, ExportError, ExportWarning, Request

    known = KINDS[kind]
    if len(names) != 1:
        raise UsageError(f"export {kind} takes one network: {known.networks}")
    request = Request(names[0], [_input(text) for text in inputs], _sizes(kind, sizes), python)
    stem = Path(names[0].rpartition(":")[2]).stem if ":" in names[0] else Path(names[0]).stem
    path = output if output.suffix == ".onnx" else output / f"{stem}.onnx"
    check_outputs([("--output", path)], inputs=names)
    try:
        module = importlib.import_module(f"epsinas_exporters.frameworks.{known.module}")
    except ImportError as error:
        raise UsageError(f"export {kind} needs its framework ({error}); run '{pip_install(known.extra)}'") from None
    import onnx_ir as ir

    from epsinas_onnx.edit.save import write_model

    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", ExportWarning)
            model = module.export_named(request)
    except ExportError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"{names[0]} cannot be read: {error.strerror or error}") from None
    write_model(ir.to_proto(model), path)
    for warning in said:
        if issubclass(warning.category, ExportWarning):
            say(f"note: {warning.message}")
    say(f"{path}: {path.stat().st_size:,} bytes")


def _input(text: str) -> Input:
    from epsinas_exporters.frameworks import Input

    name, equals, rest = text.rpartition("=")
    sizes, _, dtype = rest.partition(":")
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1 or (equals and not name):
        raise UsageError(f"--input takes NAME=1,3,224,224 or 1,128:int64, not {text!r}")
    return Input(shape, dtype or "float32", name)


def _sizes(kind: str, texts: Sequence[str]) -> dict[str, int]:
    if texts and kind != "transformers":
        raise UsageError(f"--size changes a search space or a configuration of transformers, not a network of {kind}")
    try:
        return {name: int(value) for name, value in parse_pairs("--size", texts).items()}
    except ValueError:
        raise UsageError(f"--size takes NAME=NUMBER, not {' '.join(texts)!r}") from None
