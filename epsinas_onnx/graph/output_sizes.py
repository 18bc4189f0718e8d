"""Tells how large the outputs of a node will be, from what is known of its operands, before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from epsinas_onnx._util.memory import readable
from epsinas_onnx.errors import OutOfMemory

Array = npt.NDArray[Any]
Dims = tuple[int, ...]

LARGEST = 2**30
"""Bytes that a node may make out of constants alone: half of what the largest file can hold."""
_WORK = 2**26
"""Steps that computing a small output may take."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a value. shape: None where it is unknown. array: its entries, where they are at hand.

    most: how many entries it has at most, those of a sequence together; None where that is unknown.
    """

    dtype: ir.DataType
    shape: Dims | None
    array: Array | None = None
    most: int | None = None

    @classmethod
    def of(cls, array: Array) -> Known:
        """Return what is known of an array that is at hand."""
        return cls(ir.DataType.from_numpy(array.dtype), array.shape, array, array.size)

    @property
    def bytes(self) -> int:
        """How many bytes it takes at most, as far as that is known."""
        return math.ceil((self.most or 0) * self.dtype.itemsize)


Operands = Sequence[Known | None]


def refuse_if_large(node: ir.Node, operands: Operands, made: Sequence[Known], name: str) -> None:
    """Raise OutOfMemory where a node makes more out of constants alone than is computed, and than it is given."""
    given = max((operand.most or 0 for operand in operands if operand is not None), default=0)
    for each in made:
        if each.bytes > LARGEST and (each.most or 0) > given:
            raise OutOfMemory(
                f"{name}: node {node.name!r} ({node.op_type}) makes {readable(each.bytes)} out of constants alone, and "
                f"{readable(LARGEST)} is the most that is computed; export the model with smaller constants"
            )


def refuse_if_larger(node: ir.Node, made: Sequence[Known], free: int, name: str) -> None:
    """Raise OutOfMemory where a node makes more than there is memory."""
    largest = max((each.bytes for each in made), default=0)
    if largest > free:
        raise OutOfMemory(
            f"{name}: what node {node.name!r} ({node.op_type}) makes grows to {readable(largest)}, and "
            f"{readable(free)} of memory is left; lower --batch, or give smaller shapes with --shape or --dim"
        )


def outcome(node: onnx.NodeProto, operands: Operands, imports: Mapping[str, int]) -> list[Known]:
    """Return what is known of each output of a node.

    Shapes are those of ONNX's own inference, which is told the entries of all operands that are at hand.
    """
    types = _inferred(node, operands, imports)
    limit = _bound(node, operands)
    first = next((operand.dtype for operand in operands if operand is not None), ir.DataType.FLOAT)
    made = []
    for name in node.output:
        kind = types.get(name)
        tensor = None if kind is None else kind.tensor_type
        shape = None if tensor is None else _concrete(tensor)
        dtype = ir.DataType(tensor.elem_type) if tensor is not None and tensor.elem_type else first
        made.append(Known(dtype, shape, None, limit if shape is None else math.prod(shape)))
    return made


def is_small(node: onnx.NodeProto, operands: Operands, imports: Mapping[str, int], most: int) -> bool:
    """Whether a node's outputs are known to have at most so many entries each, and to be computed in little room."""
    made = outcome(node, operands, imports)
    if any(each.most is None or each.most > most for each in made):
        return False
    work = _WORKS.get(node.op_type)
    return work is None or work(node, operands, made) <= _WORK


def _inferred(node: onnx.NodeProto, operands: Operands, imports: Mapping[str, int]) -> dict[str, onnx.TypeProto]:
    version = imports.get(node.domain, imports.get("ai.onnx", 1) if node.domain == "" else 1)
    types, data = {}, {}
    for name, operand in zip(node.input, operands, strict=False):
        if operand is None:
            continue
        types[name] = onnx.helper.make_tensor_type_proto(int(operand.dtype), operand.shape)
        if operand.array is not None and operand.array.dtype.kind in "fiub":
            data[name] = numpy_helper.from_array(operand.array)
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
        return dict(
            onnx.shape_inference.infer_node_outputs(
                schema, node, types, data, opset_imports=[onnx.helper.make_opsetid(node.domain, version)]
            )
        )
    except Exception:  # it raises several kinds, for operators that it does not know and operands that do not fit
        return {}


def _concrete(tensor: onnx.TypeProto.Tensor) -> Dims | None:
    if not tensor.HasField("shape"):
        return None
    dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
    return tuple(dims) if min(dims, default=0) >= 0 else None


def _all(operands: Operands) -> int | None:
    """As many entries as all operands together."""
    counts = [operand.most for operand in operands if operand is not None]
    return None if None in counts else sum(count for count in counts if count is not None)


def _places(operands: Operands) -> int | None:
    """The coordinates of every entry."""
    first = operands[0]
    return None if first is None or first.most is None else first.most * max(1, len(first.shape or ()))


def _chosen_boxes(operands: Operands) -> int | None:
    scores = operands[1] if len(operands) > 1 else None
    return None if scores is None or scores.most is None else 3 * scores.most


_BOUNDS: dict[str, Callable[[Operands], int | None]] = {
    "NonZero": _places, "Compress": _all, "Unique": _all, "NonMaxSuppression": _chosen_boxes, "Concat": _all,
    "SequenceConstruct": _all, "SequenceInsert": _all, "SequenceErase": _all, "SequenceAt": _all,
    "SplitToSequence": _all, "SequenceLength": lambda _: 1, "Reshape": _all, "Slice": _all, "Split": _all,
    "Squeeze": _all, "Unsqueeze": _all, "TopK": _all,
}  # fmt: skip
"""How many entries the outputs have at most where their shapes follow from entries that are not at hand."""

_GROWING = frozenset(
    {"AveragePool", "BlackmanWindow", "ConstantOfShape", "DFT", "HammingWindow", "HannWindow", "If", "Loop", "LpPool",
     "MaxPool", "Pad", "RandomNormalLike", "RandomUniformLike", "Resize", "Scan", "StringSplit", "Upsample"}
)  # fmt: skip
"""Operators of which one operand may become more entries than it has; others copy, convert or reduce it."""


def _bound(node: onnx.NodeProto, operands: Operands) -> int | None:
    if node.domain not in ("", "ai.onnx"):
        return None
    bound = _BOUNDS.get(node.op_type)
    if bound is None and len(operands) < 2 and node.op_type not in _GROWING:
        bound = _all
    return None if bound is None else bound(operands)


def _shape(operands: Operands, slot: int) -> Dims:
    operand = operands[slot] if slot < len(operands) else None
    return () if operand is None or operand.shape is None else operand.shape


def _window(node: onnx.NodeProto, operands: Operands, made: Sequence[Known]) -> int:
    """Entries of a padded image, and what all windows take out of it."""
    lists = {attribute.name: [int(number) for number in attribute.ints] for attribute in node.attribute}
    image, kernel = _shape(operands, 0), _shape(operands, 1)
    window = [*lists.get("kernel_shape", ()), *kernel[2:]]
    dilations = lists.get("dilations") or [1]
    around = sum(map(abs, lists.get("pads", ()))) + max(window, default=0) * max(dilations)
    padded = math.prod(image[:2]) * math.prod(size + around for size in image[2:])
    taken = math.prod(window) * math.prod(image[1:2]) * sum(each.most or 0 for each in made)
    return int(padded + taken)


def _einsum(node: onnx.NodeProto, operands: Operands, made: Sequence[Known]) -> int:
    """Every combination of indices."""
    return math.prod(size for operand in operands if operand is not None for size in operand.shape or ())


def _sampled(node: onnx.NodeProto, operands: Operands, made: Sequence[Known]) -> int:
    ratio = next((attribute.i for attribute in node.attribute if attribute.name == "sampling_ratio"), 0)
    return int(max(1, ratio)) ** 2 * sum(each.most or 0 for each in made)


_WORKS: dict[str, Callable[[onnx.NodeProto, Operands, Sequence[Known]], int]] = {
    "Conv": _window, "ConvInteger": _window, "QLinearConv": _window, "ConvTranspose": _window, "DeformConv": _window,
    "AveragePool": _window, "MaxPool": _window, "LpPool": _window, "Col2Im": _window, "MaxUnpool": _window,
    "Einsum": _einsum, "RoiAlign": _sampled,
}  # fmt: skip
"""Operators that may take more room or time than what goes in and comes out does."""
