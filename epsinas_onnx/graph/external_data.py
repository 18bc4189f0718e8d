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
        largest = max(kept, key=lambda v: 0 if v.const_value is None else v.const_value.nbytes)
        raise _too_large(largest.name, external, name)
    for value in kept:
        value.const_value = kept_tensor(value, name)
    for node in (node for graph in model.graphs() for node in graph if node.op_type == "Constant"):
        for key, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                tensor = read_constant(attribute.value, node.outputs[0].name, name)
                if tensor is not attribute.value:
                    node.attributes[key] = ir.AttrTensor(key, tensor)


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
    return read_constant(tensor, value.name, name)


def read_constant(tensor: ir.TensorProtocol, called: str | None, name: str) -> ir.TensorProtocol:
    """Return a stored tensor with its data in memory, which is found to fill its shape.

    Raises OutOfMemory when it is more than there is, ModelError when it is missing or cut off.
    """
    if isinstance(tensor, ir.ExternalTensor):
        return ir.tensor(np.array(tensor.numpy()), name=tensor.name)
    if not isinstance(tensor, ir.LazyTensor) and _entries(tensor) != tensor.size:
        raise ModelError(
            f"{name}: tensor {called!r} stays constant and is declared as {list(tensor.shape)}, and its data "
            f"does not fill that shape; export the model again, or give the tensor a role with --role"
        )
    return tensor


def _too_large(called: str | None, size: int, name: str) -> OutOfMemory:
    return OutOfMemory(
        f"{name}: tensor {called!r} and others that stay constant hold {readable(size)}, which is more than there "
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
