"""Reads .npy and .npz files; what they say that they hold is checked before any of it is unpacked."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from epsinas_onnx._util.memory import available_bytes, readable
from epsinas_onnx.errors import UsageError

Array = npt.NDArray[Any]

MOST_UNPACKED = 8 * 2**30
"""Bytes that the arrays of one file may hold: a hundred times the 256 images of ImageNet's usual size in float32."""
_ENDING = ".npy"


def read_arrays(path: Path) -> dict[str, Array]:
    """Return the arrays of a file by name, `""` for that of a .npy file.

    Raises UsageError where the file is missing, cut off, no file of plain arrays, or holds more than may be read.
    """
    if not path.exists():
        raise UsageError(f"the input {str(path)!r} is neither a known kind of input nor a file that exists")
    if not path.is_file():
        raise UsageError(f"the input {path} is neither a file nor a folder of images; give a .npy or .npz file")
    try:
        if not zipfile.is_zipfile(path):
            return {"": _read_npy(path)}
        with zipfile.ZipFile(path) as archive:
            return _read_npz(archive, path)
    except UsageError:
        raise
    except Exception as error:  # NumPy, zipfile and the decompressors raise what they like for damaged files
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(f"the input file {path} is no .npy or .npz file of plain arrays ({text})") from None


def array_names(path: Path) -> frozenset[str]:
    """Return the names of the arrays in a .npz file; none where it cannot be read."""
    if not path.is_file():  # a pipe would be waited for
        return frozenset()
    try:
        with zipfile.ZipFile(path) as archive:
            return frozenset(name.removesuffix(_ENDING) for name in archive.namelist())
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return frozenset()


def _read_npy(path: Path) -> Array:
    with path.open("rb") as file:
        _refuse_if_too_much(_declared(file), path)
    # A header may promise what the file does not hold; a mapping is refused where it is longer than the file.
    return np.array(np.load(path, mmap_mode="r", allow_pickle=False))


def _read_npz(archive: zipfile.ZipFile, path: Path) -> dict[str, Array]:
    members = archive.infolist()
    _refuse_if_too_much(sum(member.file_size for member in members), path)
    found = {}
    for member in members:
        name = member.filename.removesuffix(_ENDING)
        if name == member.filename:
            raise UsageError(f"the input file {path} holds {name[:80]!r}, which is no array")
        with archive.open(member) as stream:
            size, there = _declared(stream), member.file_size - stream.tell()
        if size > there:
            raise UsageError(
                f"the input file {path} is cut off: its array {name[:80]!r} should hold {readable(size)}, and "
                f"{readable(there)} are there"
            )
        with archive.open(member) as stream:
            found[name] = np.asarray(npy.read_array(stream, allow_pickle=False))
    return found


def _declared(stream: IO[bytes]) -> int:
    """Return how many bytes an array takes by its header; raises ValueError where it holds no plain numbers."""
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(npy.read_magic(stream))
    shape, _, dtype = read(stream) if read else ((), False, np.dtype(object))  # later ones are for named fields
    if dtype.hasobject or dtype.fields:
        raise ValueError("it holds Python objects, and only numbers are read")
    return math.prod(shape) * int(dtype.itemsize)


def _refuse_if_too_much(size: int, path: Path) -> None:
    most = min(MOST_UNPACKED, available_bytes())
    if size > most:
        raise UsageError(
            f"the input file {path} holds {readable(size)} of arrays, and {readable(most)} is the most that is read; "
            f"give fewer samples"
        )
