"""Looks at what a command will write before it does anything: not over its own inputs, and nothing twice."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from epsinas_onnx.cli.common import say
from epsinas_onnx.errors import UsageError
from epsinas_onnx.graph.data_files import data_files
from epsinas_onnx.output.files import check_writable, is_stream

Output: TypeAlias = tuple[str, Path]
"""The option that names a file to write, and the file."""

_Identity: TypeAlias = tuple[int, int]


def check_outputs(
    outputs: Sequence[Output], *, inputs: Iterable[str | os.PathLike[str]] = (), models: Sequence[str] = ()
) -> None:
    """Raise UsageError where an output cannot be written, is another one, or is an input, by whatever link.

    inputs: files, and folders that all files of are read. models: ONNX files, whose data files are inputs too.
    """
    named: dict[_Identity | Path, str] = {}
    existing: dict[_Identity, Output] = {}
    for option, path in outputs:
        if is_stream(path):
            continue
        check_writable(path, option)
        identity = _identity(path)
        target = identity or Path(os.path.realpath(path))
        if target in named:
            raise UsageError(f"{option}: {path} is written by {named[target]} too; name another file")
        named[target] = option
        if identity is not None:
            existing[identity] = option, path
    if not existing:
        return
    for what, file in _read_files(inputs, models):
        found = existing.get(_identity(file) or (0, 0))
        if found is not None:
            option, path = found
            raise UsageError(f"{option}: {path} is {what}, which would be written over; name another file")


def say_sizes(model: str, output: Path) -> None:
    """Say on standard error how large a written model is, beside the one that it was made from."""
    if not is_stream(output):
        before, after = Path(model).stat().st_size, output.stat().st_size
        say(f"{output}: {after:,} bytes ({model}: {before:,} bytes)")


def given_files(inputs: Any) -> Iterator[Path]:
    """Yield the files behind what `--input` names: arrays, and the images of a folder."""
    from epsinas_onnx.inputs.given import images_below
    from epsinas_onnx.inputs.minibatch import is_kind

    for given in inputs.values() if isinstance(inputs, Mapping) else [inputs]:
        if not is_kind(given):
            path = Path(given)
            with contextlib.suppress(OSError):  # a folder that cannot be read, which is said where it is
                yield from images_below(path) if path.is_dir() else [path]


def _read_files(
    inputs: Iterable[str | os.PathLike[str]], models: Sequence[str]
) -> Iterator[tuple[str, str | os.PathLike[str]]]:
    """Yield what each file is that the command reads, in words, and its path."""
    for given in inputs:
        yield f"the input {os.fspath(given)}", given
    for model in models:
        yield f"the model {model}", model
    for model in models:
        if _identity(model) is not None:
            for file in data_files(model):
                yield f"the data file {file} of the model {model}", file


def _identity(path: str | os.PathLike[str]) -> _Identity | None:
    """Return what tells a file from every other one, whatever it is called; None where no regular file is there."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None
