"""Reads the tensors that stay constant, and says which of them are missing, cut off or too large."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from epsinas_onnx._util.memory import available_bytes, readable
from epsinas_onnx.errors import ModelError, OutOfMemory
from epsinas_onnx.graph.unpacked import UNPACKED

WITHOUT_DATA = "epsinas.without_data"
"""Marks (in a value's `meta`) a weight that the file has as an input, so that there is nothing to read."""


def read_kept_data(model: ir.Model, name: str) -> None:
    """Bring the data of all tensors that stay constant into memory, in place: what is left of external data.

    Raises OutOfMemory when it is more than there is, ModelError when it is missing, cut off, or cannot be located
    because the model came without a folder.
    """
    kept = [value for graph in model.graphs() for value in graph.initializers.values()]
    external = sum(v.const_value.nbytes for v in kept if isinstance(v.const_value, ir.ExternalTensor))
    if external > available_bytes():
        raise _too_large(max(kept, key=lambda v: 0 if v.const_value is None else v.const_value.nbytes), external, name)
    for value in kept:
        value.const_value = kept_tensor(value, name)


def kept_tensor(value: ir.Value, name: str) -> ir.TensorProtocol:
    """Return the data of one tensor that stays constant, read from its file where it is external.

    Raises OutOfMemory when it is more than there is, ModelError when it is missing or cut off.
    """
    tensor = value.const_value
    if tensor is None:
        raise ModelError(f"{name}: tensor {value.name!r} has no data, and it is kept constant; give it a role")
    if WITHOUT_DATA in value.meta:
        raise ModelError(
            f"{name}: input {value.name!r} is a weight by its name and place, and it was told to stay constant; name "
            f"it with --shape or --input, and it is fed"
        )
    if UNPACKED in value.meta:
        raise ModelError(
            f"{name}: tensor {value.name!r} stands for packed weights, whose values are not read, and it was told to "
            f"stay constant; give it another role, or score the float model"
        )
    if isinstance(tensor, ir.ExternalTensor):
        if tensor.nbytes > available_bytes():
            raise _too_large(value, tensor.nbytes, name)
        return _read_external(tensor, value, name)
    check_filled(tensor, value, name)
    return tensor


def check_filled(tensor: ir.TensorProtocol, value: ir.Value, name: str) -> None:
    """Raise ModelError where the data of a tensor in the model's own file does not fill its shape."""
    if not isinstance(tensor, ir.LazyTensor | ir.ExternalTensor) and _entries(tensor) != tensor.size:
        raise ModelError(
            f"{name}: tensor {value.name!r} stays constant and is declared as {list(tensor.shape)}, and its data "
            f"does not fill that shape; export the model again, or give the tensor a role with --role"
        )


def _too_large(value: ir.Value, size: int, name: str) -> OutOfMemory:
    return OutOfMemory(
        f"{name}: tensor {value.name!r} and others that stay constant hold {readable(size)}, which is more than there "
        f"is memory; give them a role with --role"
    )


_DATA_FIELDS = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


def _entries(tensor: ir.TensorProtocol) -> int:
    # A tensor without any data field reads as zeros.
    if isinstance(tensor, ir.TensorProtoTensor) and not any(len(getattr(tensor.raw, name)) for name in _DATA_FIELDS):
        return 0
    try:
        return int(tensor.numpy().size)
    except Exception:  # NumPy and onnx-ir raise what they like for bytes that do not fit
        return -1


def _read_external(tensor: ir.ExternalTensor, value: ir.Value, name: str) -> ir.TensorProtocol:
    location = str(tensor.location)
    if not str(tensor.base_dir):
        raise ModelError(
            f"{name}: tensor {value.name!r} stays constant, and its data file {location!r} cannot be found without the "
            f"model's folder; give the model as a path"
        )
    try:
        return ir.tensor(np.array(tensor.numpy()), name=tensor.name)
    except Exception as error:
        raise ModelError(
            f"{name}: tensor {value.name!r} stays constant, and its data file {location!r} cannot be read "
            f"({type(error).__name__}); put the file beside the model, or give the tensor a role with --role"
        ) from error
