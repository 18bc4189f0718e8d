"""Describes stored tensors for a fingerprint: shape and type always, values only where training never changes them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

_MOST_READ = 65_536
"""Entries up to which whole numbers, booleans and strings count by their values, wherever they are stored."""
_MOST_SHOWN = 8
_DIRECT = frozenset(
    {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.INT8, ir.DataType.INT16,
     ir.DataType.INT32, ir.DataType.INT64, ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32,
     ir.DataType.UINT64, ir.DataType.BOOL}
)  # fmt: skip
"""Types that a ConstantOfShape of any operator set makes; `strip` casts to the others."""


@dataclass(frozen=True)
class Stored:
    """A stored tensor, however it is stored: an initializer, a Constant, or one number repeated to a known shape.

    root: whose identity tells it from its equals, and what `learned_tensors` knows it as. dims: None where unknown.
    data: all entries, or the number that is repeated; None where the file has none.
    """

    root: ir.Value
    dtype: ir.DataType | None
    dims: tuple[int, ...] | None
    data: ir.TensorProtocol | None

    @property
    def is_table(self) -> bool:
        """Whether two axes or more are longer than 1."""
        return sum(dim > 1 for dim in self.dims or ()) > 1

    @property
    def counts_by_value(self) -> bool:
        """Whether its values are architecture where it is not learned: no floats, or a single one."""
        if self.dims is None or self.dtype is None:
            return False
        return math.prod(self.dims) <= (1 if self.dtype.is_floating_point() else _MOST_READ)

    def text(self, with_value: bool) -> str:
        """Return type, shape and, where wanted and known, the values."""
        array = read(self.data) if with_value and self.data is not None else None
        return _text(self.dtype, self.dims, array)


def find_stored(value: ir.Value, learned: Collection[ir.Value]) -> Stored | None:
    """Return the stored tensor that a value is, looking through Identity; None for what is computed.

    Exporters put an Identity between equal tensors and their users, and `strip` makes types that ConstantOfShape
    lacks by a Cast, so a Cast to one of them belongs to the tensor as well where the values do not count.
    """
    casts: list[ir.DataType] = []
    while (node := value.producer()) is not None and node.domain == "" and node.inputs and node.inputs[0] is not None:
        if node.op_type == "Cast" and not casts:
            casts.append(ir.DataType(node.attributes.get_int("to", 0)))
            if casts[0] in _DIRECT:
                return None
        elif node.op_type != "Identity":
            break
        value = node.inputs[0]
    base = _stored(value, node)
    if base is None or not casts:
        return base
    if base.dtype != ir.DataType.FLOAT or not (base.root in learned or base.data is None or base.data.size == 1):
        return None
    return Stored(base.root, casts[0], base.dims, base.data)


def stored_shape(value: ir.Value | None) -> list[int] | None:
    """Return the shape of an initializer, a Constant, or a ConstantOfShape in its place."""
    if value is None:
        return None
    node = value.producer()
    if node is not None and node.op_type == "ConstantOfShape" and node.domain == "" and node.inputs[0] is not None:
        sizes = _list(node.inputs[0])
        return None if sizes is None else list(sizes)
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else [int(dim) for dim in tensor.shape]  # type: ignore[arg-type]


def _stored(value: ir.Value, node: ir.Node | None) -> Stored | None:
    if node is None:
        if not value.is_initializer():
            return None
        tensor = value.const_value
        if tensor is None:
            return Stored(value, value.dtype, _sizes(value.shape), None)
        return Stored(value, tensor.dtype, _sizes(tensor.shape), tensor)
    if node.domain != "":
        return None
    if node.op_type == "Constant":
        tensor = _constant(value)
        return None if tensor is None else Stored(value, tensor.dtype, _sizes(tensor.shape), tensor)
    if node.op_type == "ConstantOfShape":
        sizes = _list(node.inputs[0])
        filling = node.attributes.get("value")
        number: ir.TensorProtocol = ir.tensor(np.zeros(1, np.float32)) if filling is None else filling.value
        return None if sizes is None else Stored(value, number.dtype, sizes, number)
    if node.op_type == "Tile" and len(node.inputs) == 2:
        one, sizes = node.inputs[0], _list(node.inputs[1])
        tensor = None if one is None else _constant(one)
        if one is None or tensor is None or tensor.size != 1 or sizes is None or len(sizes) != len(tensor.shape):
            return None
        return Stored(value, tensor.dtype, sizes, tensor)
    return None


def _constant(value: ir.Value) -> ir.TensorProtocol | None:
    try:
        return ir.convenience.get_const_tensor(value)
    except ValueError:  # a Constant without a value, or with two
        return None


def _list(value: ir.Value | None) -> tuple[int, ...] | None:
    tensor = None if value is None else _constant(value)
    array = None if tensor is None or tensor.dtype.is_floating_point() else read(tensor)
    return None if array is None else tuple(int(size) for size in array.reshape(-1))


def _sizes(shape: Any) -> tuple[int, ...] | None:
    if shape is None or not all(isinstance(dim, int) for dim in shape):
        return None
    return tuple(int(dim) for dim in shape)


def read(tensor: ir.TensorProtocol, most: int = _MOST_READ) -> npt.NDArray[Any] | None:
    """Return up to `most` entries of a tensor; None where it has more, and where they are missing or cut off."""
    if tensor.size > most:
        return None
    try:
        array = np.array(tensor.numpy())
    except Exception:  # NumPy and onnx-ir raise what they like for bytes that do not fit
        return None
    return array if array.size == tensor.size else None


def tensor_text(tensor: ir.TensorProtocol) -> str:
    """Return type, shape and, where there are few entries, the values of a tensor that no value holds."""
    return _text(tensor.dtype, _sizes(tensor.shape), read(tensor))


def _text(dtype: ir.DataType | None, dims: tuple[int, ...] | None, array: npt.NDArray[Any] | None) -> str:
    shape = "?" if dims is None else ",".join(map(str, dims))
    return f"{dtype}[{shape}]" + ("" if array is None else f" {_values(array)}")


def _values(array: npt.NDArray[Any]) -> str:
    flat = array.reshape(-1)
    first = [_entry(entry) for entry in flat[:_MOST_SHOWN]]
    if flat.size > 1 and all(_entry(entry) == first[0] for entry in (flat[-1], *flat[:2])) and (flat == flat[0]).all():
        return f"all {first[0]}"
    if flat.size <= _MOST_SHOWN:
        return first[0] if flat.size == 1 else f"[{','.join(first)}]"
    entries = "\n".join(map(_entry, flat)) if flat.dtype.kind in "OSU" else None
    data = np.ascontiguousarray(flat).tobytes() if entries is None else entries.encode()
    return f"sha256 {hashlib.sha256(data).hexdigest()[:16]}"


def _entry(entry: Any) -> str:
    if isinstance(entry, (bytes, str)):
        return repr(entry.decode("utf-8", "replace") if isinstance(entry, bytes) else str(entry))
    return str(entry)
