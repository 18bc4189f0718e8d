"""Finds the caches of a decoder, inputs that hold the keys and values of earlier tokens, and the sizes that agree."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import onnx_ir as ir

from epsinas_onnx.graph.analysis.features import feature_count
from epsinas_onnx.graph.constant_tensor import constant_tensor
from epsinas_onnx.graph.tensor_summary import read
from epsinas_onnx.graph.traversal import LAYOUT, body_outputs

if TYPE_CHECKING:
    from epsinas_onnx.graph.analysis.input_spec import InputSpec

Dims = Sequence[int | str | None]
_MICROSOFT = "com.microsoft"
_SLOTS = {
    ("", "Attention"): {4: 2, 5: 2},
    ("", "TensorScatter"): {0: -2},
    (_MICROSOFT, "Attention"): {4: 3},
    (_MICROSOFT, "MultiHeadAttention"): {6: 2, 7: 2},
    (_MICROSOFT, "GroupQueryAttention"): {3: 2, 4: 2},
    (_MICROSOFT, "SparseAttention"): {3: 2, 4: 2},
    (_MICROSOFT, "DecoderMaskedSelfAttention"): {4: 3},
    (_MICROSOFT, "DecoderMaskedMultiHeadAttention"): {5: 2, 6: 2},
}
"""Operands that are caches, and the axis of their tokens (ONNX operators; ONNX Runtime's contributed operators)."""
_WRITES = frozenset(
    {"TensorScatter", "GroupQueryAttention", "SparseAttention", "DecoderMaskedSelfAttention",
     "DecoderMaskedMultiHeadAttention"}
)  # fmt: skip
"""Operators that write new tokens into a cache of a fixed size, rather than behind its last one."""
_KEEPS_ALL = LAYOUT - {"Slice", "Pad", "Gather"} | {"Concat"}
"""Operators whose output holds all entries of an operand."""
Place = tuple[ir.Value, int, int]
"""A value, the axis that is followed, and the rank."""
Open = tuple[str, int] | int | str | None
"""An open dimension: an input and its axis, or the name that the dimension has."""


@dataclass(frozen=True)
class Cache:
    """An input of earlier tokens: its declared dimensions, the axis of the tokens, and the node that takes it."""

    name: str
    dims: Dims
    axis: int
    node: ir.Node

    @property
    def op_type(self) -> str:
        """Return the operator that takes it."""
        return self.node.op_type

    @property
    def grows(self) -> bool:
        """Return whether new tokens are appended to it, rather than written into it."""
        return self.op_type not in _WRITES

    @property
    def open(self) -> bool:
        """Return whether the file leaves open how many tokens were seen."""
        # A TensorScatter has a buffer, whose size is the most tokens that it can hold.
        return self.op_type != "TensorScatter" and not isinstance(self.dims[self.axis], int)


@dataclass(frozen=True)
class Decoding:
    """How far a decoder is when it is fed. seen: tokens that its caches hold. new: those fed now, None if unknown."""

    seen: int = 0
    new: int | None = None


def open_dims(shape: ir.Shape) -> tuple[int | str | None, ...]:
    """Return dimensions as the file gives them; sizes below 1 count as free."""
    dims = (dim if isinstance(dim, int) else dim.value for dim in shape)
    return tuple(None if isinstance(dim, int) and dim < 1 else dim for dim in dims)


def find_caches(model: ir.Model) -> list[Cache]:
    """Return the inputs to which new keys and values are appended or written, with the axis along which they are.

    A Concat of an input and something computed is a cache where the result is handed out again, uncut, for the next
    turn. Caches of a cross-attention, which are only read, are none.
    """
    handed = cache(lambda: _handed_out(model))
    found = []
    for value in model.graph.inputs:
        if value.name in model.graph.initializers or not _may_be_cache(value):
            continue
        assert value.shape is not None
        takers = [_taker(value, axis, len(value.shape), handed) for axis in range(len(value.shape))]
        name, dims = str(value.name), open_dims(value.shape)
        found += [Cache(name, dims, axis, node) for axis, node in enumerate(takers) if node is not None]
    return found


def grown_caches(model: ir.Model) -> list[ir.Value]:
    """Return the caches that Attention nodes hand on to nobody: ONNX Runtime takes none in that gives none out."""
    nodes = [node for node in model.graph if node.op_type == "Attention" and node.domain == ""]
    grown = [value for node in nodes if any(node.inputs[4:6]) for value in node.outputs[1:3]]
    return [value for value in grown if value.name and not value.uses() and not value.is_graph_output()]


def _may_be_cache(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_floating_point() and len(value.shape or ()) > 2


def _taker(value: ir.Value, axis: int, rank: int, handed: Callable[[], Collection[ir.Value]]) -> ir.Node | None:
    """Return the node that adds tokens to a value along an axis, None where none does."""
    pending: list[Place] = [(value, axis, rank)]
    seen = {value}
    while pending:
        current, axis, rank = pending.pop()
        for use in current.uses():
            node = use.node
            slots = _SLOTS.get((node.domain, node.op_type), {})
            if use.idx in slots:
                if _token_axis(node, slots[use.idx]) % rank == axis:
                    return node
                continue
            if node.op_type == "Concat":
                along = node.attributes.get_int("axis", 0) % rank
                if along == axis and use.idx == 0 and len(node.inputs) > 1 and node.outputs[0] in handed():
                    return node
                continue
            for place in _moved(node, use.idx, axis, rank):
                if place[0] not in seen:
                    seen.add(place[0])
                    pending.append(place)
    return None


def _token_axis(node: ir.Node, axis: int) -> int:
    return node.attributes.get_int("axis", -2) if node.op_type == "TensorScatter" else axis


def _moved(node: ir.Node, slot: int, axis: int, rank: int) -> Iterator[Place]:
    """Yield where an axis lands behind an operator that leaves its size alone."""
    if slot != 0 or node.domain != "" or node.op_type not in LAYOUT:
        return
    match node.op_type:
        case "Identity" | "Cast":
            pass
        case "Transpose":
            perm = list(node.attributes.get_ints("perm", None) or reversed(range(rank)))
            if axis not in perm:  # made for another rank: ONNX Runtime will say so
                return
            axis = perm.index(axis)
        case "Split":
            if node.attributes.get_int("axis", 0) % rank == axis:
                return
        case "Gather":
            along, indices = node.attributes.get_int("axis", 0) % rank, node.inputs[1]
            tensor = None if indices is None else constant_tensor(indices)
            if along == axis or tensor is None:
                return
            added = len(tensor.shape) - 1
            axis, rank = axis + added * (along < axis), rank + added
        case "Squeeze":
            axes = _axes(node, rank)
            if axes is None or axis in axes:
                return
            axis, rank = axis - sum(each < axis for each in axes), rank - len(axes)
        case _:
            return
    yield from ((output, axis, rank) for output in node.outputs)


def _axes(node: ir.Node, rank: int) -> list[int] | None:
    attribute = node.attributes.get_ints("axes", None)
    operand = node.inputs[1] if len(node.inputs) > 1 else None
    tensor = None if operand is None else constant_tensor(operand)
    array = None if tensor is None else read(tensor)
    axes = attribute if attribute is not None else None if array is None else array.reshape(-1).tolist()
    return None if axes is None else [int(axis) % rank for axis in axes]


def _handed_out(model: ir.Model) -> set[ir.Value]:
    """Return the values that outputs of the model hold whole: laid out anew, put together, or out of a branch."""
    inner: dict[ir.Value, list[ir.Value]] = {}
    for inside, outside in body_outputs(model).items():
        for output in outside:
            inner.setdefault(output, []).append(inside)
    pending = list(model.graph.outputs)
    found = set(pending)
    while pending:
        value = pending.pop()
        node = value.producer()
        held = list(inner.get(value, ()))
        if node is not None and node.op_type in _KEEPS_ALL:
            held += [operand for operand in node.inputs if operand is not None]
        pending += [each for each in held if each not in found]
        found.update(held)
    return found


def cache_sizes(caches: Iterable[Cache], seen: int) -> dict[Open, int]:
    """Return the sizes of open dimensions of caches, by name and axis and by the dimension's own name.

    seen: how many tokens they hold. What GroupQueryAttention takes is as wide as a head of its queries.
    """
    sizes: dict[Open, int] = {}
    for each in caches:
        if each.open:
            sizes |= {(each.name, each.axis): seen, each.dims[each.axis]: seen}
        last = len(each.dims) - 1
        width = _head_width(each.node) if each.op_type == "GroupQueryAttention" else None
        if width is not None and not isinstance(each.dims[last], int):
            sizes |= {(each.name, last): width, each.dims[last]: width}
    return {key: size for key, size in sizes.items() if key is not None}


def _head_width(node: ir.Node) -> int | None:
    """Return how wide a head is, from the layer that makes the queries, or queries, keys and values in one."""
    features = feature_count(node.inputs[0])
    heads = node.attributes.get_int("num_heads", 0)
    if node.inputs[1] is None:
        heads += 2 * node.attributes.get_int("kv_num_heads", 0)
    return features // heads if features and heads and features % heads == 0 else None


def is_open_cache(name: str, dims: Dims, batch_axis: int | None, caches: Iterable[Cache]) -> bool:
    """Return whether an input holds as many tokens as there happen to be: an open cache, or one that is only read.

    The keys and values of a cross-attention have the form of those that are appended to: the same heads and widths.
    """
    free = any(not isinstance(dim, int) for axis, dim in enumerate(dims) if axis != batch_axis)
    return any(name == each.name or (free and _fixed(dims) == _fixed(each.dims)) for each in caches if each.open)


def _fixed(dims: Dims) -> list[int | None]:
    return [dim if isinstance(dim, int) else None for dim in dims]


def decoding(specs: Iterable[InputSpec], caches: Sequence[Cache]) -> Decoding:
    """Return how far a decoder is: behind all that was appended; at the start, or with one token the end, of a buffer.

    A prompt starts at the first place. A single token would see nothing but itself there.
    """
    by_name = {spec.name: spec for spec in specs}
    new = _new_tokens(by_name.values(), {each.name for each in caches})
    sizes = [(by_name[each.name].shape[each.axis], each.grows) for each in caches if each.name in by_name]
    appended = [size for size, grows in sizes if grows]
    if appended or not sizes:
        return Decoding(max(appended, default=0), new)
    return Decoding(max(0, min(size for size, _ in sizes) - 1) if new == 1 else 0, new)


def _new_tokens(specs: Iterable[InputSpec], caches: Collection[str]) -> int | None:
    """Return how many tokens of a sample are fed: along a list of integers, or else along embedded tokens."""
    fed = [spec for spec in specs if spec.batch_axis == 0 and spec.name not in caches and not _is_mask(spec)]
    tokens = (spec.shape[1] for spec in fed if spec.dtype.is_integer() and len(spec.shape) == 2)
    embedded = (spec.shape[1] for spec in fed if spec.dtype.is_floating_point() and len(spec.shape) == 3)
    return next(tokens, next(embedded, None))


def _is_mask(spec: InputSpec) -> bool:
    return "mask" in spec.name.lower()


def agreeing(specs: Sequence[InputSpec], caches: Sequence[Cache], given: Collection[str]) -> list[InputSpec]:
    """Return inputs whose open sizes agree: a mask covers all tokens seen and fed, and a dimension may be a sum.

    given: inputs and dimensions whose size is not to be decided here.
    """
    state = decoding(specs, caches)
    known = _known_sizes(specs)
    own = [dim for spec in specs if not _is_mask(spec) for dim in spec.declared]
    agreed = []
    for spec in specs:
        sizes = list(spec.shape)
        for axis, dim in enumerate(spec.declared):
            if isinstance(dim, int) or axis == spec.batch_axis or spec.name in given or dim in given:
                continue
            total = _evaluated(dim, known)
            last = axis == len(sizes) - 1 and axis > 0
            if caches and state.new is not None and last and _is_mask(spec) and (dim is None or dim not in own):
                total = state.seen + state.new
            sizes[axis] = sizes[axis] if total is None else total
        agreed.append(replace(spec, shape=tuple(sizes)))
    return agreed


def _known_sizes(specs: Iterable[InputSpec]) -> dict[str, int]:
    """Return the sizes of named dimensions that no minibatch changes."""
    batch = {spec.declared[spec.batch_axis] for spec in specs if spec.batch_axis is not None}
    pairs = (pair for spec in specs for pair in zip(spec.declared, spec.shape, strict=True))
    return {dim: size for dim, size in pairs if isinstance(dim, str) and dim.isidentifier() and dim not in batch}


def _evaluated(dim: str | None, known: Mapping[str, int]) -> int | None:
    """Return the size of a dimension that is written as sums, differences and products of others; None for others."""
    if dim is None or dim.isidentifier():
        return None
    try:
        size = _value(ast.parse(dim, mode="eval").body, known)
    except (SyntaxError, ValueError, LookupError, RecursionError):
        return None
    return size if size > 0 else None


def _value(tree: ast.expr, known: Mapping[str, int]) -> int:
    match tree:
        case ast.Constant(value=int() as number):
            return number
        case ast.Name(id=name):
            return known[name]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _value(left, known) + _value(right, known)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _value(left, known) - _value(right, known)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _value(left, known) * _value(right, known)
    raise LookupError(ast.dump(tree))
