"""Decides about every place outside a model file where a tensor keeps its data: what is opened, and what never is."""

from __future__ import annotations

import ntpath
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import TensorProto

from epsinas_onnx._util.memory import available_bytes, readable
from epsinas_onnx.errors import ModelError, OutOfMemory
from epsinas_onnx.graph.tensor_data import every_tensor
from epsinas_onnx.graph.traversal import all_graphs

LARGEST_FILE = 2**31
"""Bytes of the largest model file: a protobuf holds no more, and larger models keep their weights in data files."""
_FARTHEST = 2**63
_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}  # fmt: skip


def read_model_file(path: Path) -> bytes:
    """Return the bytes of a model file; raises ModelError for what is no regular file, before it is opened."""
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            raise ModelError(f"{path}: is a folder; name the ONNX files in it")
        with _open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > LARGEST_FILE:
                raise ModelError(
                    f"{path}: has {readable(size)}, and an ONNX file has no more than {readable(LARGEST_FILE)}; it is "
                    f"another kind of file, or its weights belong into a data file beside it"
                )
            data = file.read(size)
    except FileNotFoundError:
        raise ModelError(f"{path}: there is no such file") from None
    except (OSError, ValueError) as error:  # a path with a zero byte is a ValueError
        raise ModelError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not data:
        raise ModelError(f"{path}: the file is empty; export the model again")
    return data


def check_references(proto: onnx.ModelProto, folder: Path | None, name: str) -> None:
    """Raise ModelError for the first tensor, wherever it is, whose data is said to lie where none may.

    Refused are places outside the model's folder, what is no file, and positions that are no numbers. No data file is
    opened. folder: the model's; None for one that came without.
    """
    known: set[str] = set()
    for tensor in every_tensor(proto):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        what = f"{name}: tensor {tensor.name!r}"
        locations = [entry.value for entry in tensor.external_data if entry.key == "location"] or [""]
        for location in locations:
            if location not in known:
                _check_location(location, folder, what)
                known.add(location)
        for entry in tensor.external_data:
            if entry.key in ("offset", "length") and not _is_position(entry.value):
                raise ModelError(
                    f"{what} says of its data in {locations[-1]!r} that its {entry.key} is {entry.value[:40]!r}, which "
                    f"is no place in a file; export the model again"
                )


def bind_data_files(model: ir.Model, folder: Path | None, name: str) -> None:
    """Make every tensor of a model that lies in a data file be read under this module's rules, in place.

    What an operator's own attribute holds is no weight, unless the operator is Constant: it is read at once.

    folder: the model's; None for one that came without, whose data files cannot be read.
    """
    _bind(model, name, lambda _: folder)


def bind_own_data_files(model: ir.Model, name: str) -> None:
    """Do the same for a model made in memory, whose tensors say themselves which folder is theirs, after a check."""

    def own(tensor: ir.ExternalTensor) -> Path | None:
        folder = Path(tensor.base_dir) if os.fspath(tensor.base_dir) else None
        _check_location(os.fspath(tensor.location), folder, f"{name}: tensor {tensor.name!r}")
        return folder

    _bind(model, name, own)


def _bind(model: ir.Model, name: str, folder_of: Callable[[ir.ExternalTensor], Path | None]) -> None:
    roots = (model.graph, *(function.graph for function in model.functions.values()))
    for graph in (graph for root in roots for graph in all_graphs(root)):
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = DataFileTensor(value.const_value, folder_of(value.const_value), name)
        for node in graph:
            for key, attribute in list(node.attributes.data.items()):  # a plain dict, which is faster to ask
                if attribute.type not in (ir.AttributeType.TENSOR, ir.AttributeType.TENSORS):
                    continue
                held = list(_tensors(attribute))
                if not any(isinstance(tensor, ir.ExternalTensor) for tensor in held):
                    continue
                for index, tensor in enumerate(held):
                    if isinstance(tensor, ir.ExternalTensor):
                        found = DataFileTensor(tensor, folder_of(tensor), name)
                        held[index] = found if node.op_type == "Constant" else _in_memory(found)
                is_list = attribute.type == ir.AttributeType.TENSORS
                node.attributes[key] = ir.AttrTensors(key, held) if is_list else ir.AttrTensor(key, held[0])


class DataFileTensor(ir.ExternalTensor):
    """A tensor whose data lies in a file: whoever asks for its entries gets them, or a ModelError that says why not.

    Only a regular file is opened that is below the model's folder once all links are followed.
    """

    __slots__ = ("_entries", "_folder", "_model")

    def __init__(self, tensor: ir.ExternalTensor, folder: Path | None, model: str) -> None:
        super().__init__(
            tensor.location, tensor.offset, tensor.length, tensor.dtype, shape=tensor.shape, name=tensor.name,
            doc_string=tensor.doc_string, base_dir="" if folder is None else folder,
        )  # fmt: skip
        self._folder, self._model = folder, model
        self._entries: npt.NDArray[Any] | None = None

    def numpy(self) -> npt.NDArray[Any]:
        """Return the entries, read from the file the first time; raises ModelError, or OutOfMemory."""
        if self._entries is None:
            self._entries = self._read()
        return self._entries

    def __array__(self, dtype: Any = None) -> npt.NDArray[Any]:
        return self.numpy().__array__(dtype)

    def tobytes(self) -> bytes:
        """Return the bytes as the file has them; see `numpy`."""
        return self._data()

    def tofile(self, file: BinaryIO) -> None:
        """Write the bytes as the file has them; see `numpy`."""
        file.write(self._data())

    def _read(self) -> npt.NDArray[Any]:
        dims = [int(dim) for dim in self.shape.numpy()]
        if 0 in dims:
            return np.empty(dims, self.dtype.numpy())
        proto = TensorProto(data_type=int(self.dtype), dims=dims, raw_data=self._data())
        return np.array(ir.TensorProtoTensor(proto).numpy())

    def _data(self) -> bytes:
        location = os.fspath(self.location)
        if self._folder is None:
            raise self._refusal("cannot be found without the model's folder; give the model as a path")
        if self.dtype == ir.DataType.STRING:
            raise self._refusal("cannot hold texts; export the model again")
        size = int(self.nbytes)
        if self.length is not None and self.length != size:
            raise self._refusal(
                f"is said to hold {self.length:,} bytes of it, where it takes {size:,}; export it again"
            )
        if size > available_bytes():
            raise OutOfMemory(
                f"{self._model}: tensor {self.name!r} stays constant and holds {readable(size)}, which is more than "
                f"there is memory; give it a role with --role"
            )
        try:
            root = self._folder.resolve()
            path = (root / location).resolve()
            if not path.is_relative_to(root):
                raise self._refusal(
                    "is outside the model's folder, where a link leads; this is refused, so copy the file to the model"
                )
            with _open_regular(path) as file:
                # onnx-ir too takes a second name of a file for one that somebody else's file was given.
                if os.fstat(file.fileno()).st_nlink > 1:
                    raise self._refusal("has several names (hard links), so that it may lie elsewhere; copy it")
                start = self.offset or 0
                if start + size > os.fstat(file.fileno()).st_size:
                    raise self._refusal(f"ends before byte {start + size:,}; copy the file again")
                file.seek(start)
                return file.read(size)
        except FileNotFoundError:
            raise self._refusal("is missing; put the file beside the model") from None
        except (OSError, ValueError, RuntimeError) as error:  # a RuntimeError: links that lead in a circle
            raise self._refusal(f"cannot be read ({getattr(error, 'strerror', None) or error}); mend that") from None

    def _refusal(self, why: str) -> ModelError:
        return ModelError(
            f"{self._model}: tensor {self.name!r} stays constant, and its data file {os.fspath(self.location)!r} {why}"
            f", or give the tensor a role with --role"
        )


def _open_regular(path: Path) -> BinaryIO:
    """Open a regular file; raises OSError for anything else, before it is opened and, were it replaced, after."""
    _check_regular(path.stat().st_mode)
    # Opening a pipe waits for its other end, unless it is told not to.
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        _check_regular(os.fstat(file.fileno()).st_mode)
    except OSError:
        file.close()
        raise
    return file


def _check_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise OSError(f"it is {_kind(mode)}, not a file")


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "no regular file")


def _check_location(location: str, folder: Path | None, what: str) -> None:
    paths = (PurePosixPath(location), PureWindowsPath(location))  # on every system both, so that all say the same
    if any(map(_leaves, paths)) or ntpath.splitdrive(location)[0] or "\0" in location:
        raise ModelError(
            f"{what} keeps its data in {location!r}, which is outside the model's folder; this is refused, so move the "
            f"data file beside the model"
        )
    if not PurePath(location).name:
        raise ModelError(f"{what} keeps its data in a file, and {location!r} names none; export the model again")
    if folder is None:
        return
    try:
        mode = (folder / location).stat().st_mode
    except OSError:  # missing, as data files of weights may be
        return
    if not stat.S_ISREG(mode):
        raise ModelError(f"{what} keeps its data in {location!r}, which is {_kind(mode)}; export the model again")


def _leaves(location: PurePath) -> bool:
    """Whether a path begins elsewhere, or climbs out of where it begins."""
    depth = 0
    for part in location.parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return bool(location.anchor)


def _is_position(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 20 and int(text) < _FARTHEST


def _in_memory(tensor: ir.ExternalTensor) -> ir.TensorProtocol:
    return ir.tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)


def _tensors(attribute: ir.Attr) -> Iterable[Any]:
    if attribute.is_ref():
        return ()
    if attribute.type == ir.AttributeType.TENSOR:
        return (attribute.value,)
    return attribute.value if attribute.type == ir.AttributeType.TENSORS else ()
