"""Makes the free dimensions of a model concrete, finds its batch axes, and infers every shape that follows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

import onnx_ir as ir

from epsinas_onnx.errors import ShapeError, UnsupportedError
from epsinas_onnx.graph.analysis.caches import agreeing, cache_sizes, find_caches, is_open_cache, open_dims
from epsinas_onnx.graph.analysis.input_spec import InputSpec, _fixes_several, image_layout
from epsinas_onnx.graph.traversal import LAYOUT

Shapes: TypeAlias = Mapping[str, int | Sequence[int]]
"""What a user says of shapes: a free dimension's name and its size, or an input's name and its whole shape."""

IMAGE_SIZES = (224, 48, 32, 64, 320, 640)
"""Heights and widths tried in turn for images whose size the model leaves open."""
OTHER_SIZES = (128, 512, 576, 1024, 16_000, 64, 32, 16)
"""Sizes tried in turn for every other free dimension that is not the batch."""


def model_inputs(model: ir.Model) -> list[ir.Value]:
    """Return the inputs that must be fed; an initializer that is listed as an input too is not one of them."""
    return [value for value in model.graph.inputs if value.name not in model.graph.initializers]


def declared_dims(value: ir.Value, name: str) -> tuple[int | str | None, ...]:
    """Return an input's dimensions as the file gives them; sizes below 1 count as free.

    Raises ShapeError when the rank is unknown and UnsupportedError when the input is no tensor.
    """
    if value.type is not None and not isinstance(value.type, ir.TensorType):
        raise UnsupportedError(
            f"{name}: input {value.name!r} is a {type(value.type).__name__}, and only tensors can be fed"
        )
    if value.dtype is None or value.dtype == ir.DataType.UNDEFINED:
        raise UnsupportedError(f"{name}: input {value.name!r} has no element type; export the model again")
    if value.dtype != ir.DataType.STRING and value.dtype.bitwidth < 8:
        raise UnsupportedError(f"{name}: input {value.name!r} is {value.dtype}, and no array of these can be fed")
    if value.shape is None:
        raise ShapeError(
            f"{name}: input {value.name!r} has no rank; give its shape with --shape {value.name}=1,3,224,224"
        )
    return open_dims(value.shape)


def free_dimensions(model: ir.Model, name: str, shapes: Shapes) -> bool:
    """Return whether a dimension behind the batch is open and not in `shapes`, so that its size is a guess."""
    return any(
        not isinstance(dim, int) and axis != spec.batch_axis and dim not in shapes
        for spec in input_specs(model, name, 1, shapes)
        if spec.name not in shapes
        for axis, dim in enumerate(spec.declared)
    )


def input_specs(model: ir.Model, name: str, batch: int, shapes: Shapes, attempt: int = 0) -> list[InputSpec]:
    """Decide the concrete shape of every input.

    batch: samples per minibatch; it replaces whatever the batch axis declares, a given shape included.
    shapes: free dimensions by name and whole shapes by input name; they win over every default.
    attempt: which of `IMAGE_SIZES` and `OTHER_SIZES` to take for dimensions that nobody named; where a decoder leaves
        open how many tokens its caches hold, each with none, which is how a prompt starts, and then with one.

    The batch axis is the axis with the name of the first free axis 0, else axis 0 where it is free; where no input has
    a free axis 0, an axis 0 of size 1; and axis 1 of recurrent states. Where all this finds none, the file fixes a
    batch of several samples: axis 0 of the first input with two axes, and of all inputs of the same size there. A free
    dimension with the name of a batch axis has its size.

    Raises ShapeError when a given shape does not fit what the file declares, or names nothing.
    """
    values = model_inputs(model)
    declared = {
        str(value.name): declared_dims(value, name)
        if str(value.name) not in shapes or value.shape is not None
        else (None, *_given(shapes, str(value.name))[1:])  # without a rank in the file, axis 0 is the batch
        for value in values
    }
    caches = find_caches(model)
    past = [cache for cache in caches if cache.open]
    _check_names(shapes, declared, {key for each in past for key in (each.name, each.dims[each.axis])}, name)
    symbol = _batch_symbol(declared.values())
    free = any(dims and not isinstance(dims[0], int) for dims in declared.values())
    axes = _batch_axes(declared, symbol, free)
    for value in values:
        dims = declared[str(value.name)]
        if len(dims) == 3 and dims[1] == 1 and _is_state(value):  # [layers, batch, hidden]
            axes[str(value.name)] = 1
    of_batch = {declared[each][axis] for each, axis in axes.items() if axis is not None} - {None}
    attempt, seen = divmod(attempt, 2) if past else (attempt, 0)
    decided = cache_sizes(caches, seen)
    specs = []
    for value in values:
        dims = declared[str(value.name)]
        dtype = value.dtype or ir.DataType.FLOAT
        axis = axes[str(value.name)]
        chosen = _given(shapes, str(value.name)) if str(value.name) in shapes else None
        if chosen is not None:
            _check_fit(chosen, dims, axis, str(value.name), name)
        cache = is_open_cache(str(value.name), dims, axis, caches)
        layout = None if cache else image_layout(dims, dtype)
        default = _default_size(layout, attempt)
        sizes = []
        for position, dim in enumerate(dims):
            if position == axis and not _fixes_several(dim):
                sizes.append(batch)
            elif chosen is not None:
                sizes.append(chosen[position])
            elif isinstance(dim, int):
                sizes.append(dim)
            elif dim is not None and dim in shapes:
                sizes += _given(shapes, dim)
            elif isinstance(dim, str) and dim in of_batch:  # one name is one size
                sizes.append(batch)
            elif (place := (str(value.name), position)) in decided or dim in decided:
                sizes.append(decided[place if place in decided else dim])
            elif layout and position == layout.index("C"):
                sizes.append(3)
            else:
                sizes.append(default)
        specs.append(InputSpec(str(value.name), dtype, dims, tuple(sizes), axis, cache))
    return agreeing(specs, caches, shapes)


def known_shape(value: ir.Value) -> tuple[int, ...] | None:
    """Return the concrete shape of a value, or None where any dimension is unknown, for which some write -1."""
    if value.shape is None:
        return None
    dims = value.shape.dims
    for dim in dims:
        if not isinstance(dim, int) or dim < 0:
            return None
    return dims  # type: ignore[return-value]


def _batch_symbol(declared: Iterable[Sequence[int | str | None]]) -> str | None:
    """Return the name of the first free axis 0, or of the only free dimension where no axis 0 is free."""
    everything = list(declared)
    for dims in everything:
        if dims and isinstance(dims[0], str):
            return dims[0]
    names = {dim for dims in everything for dim in dims if isinstance(dim, str)}
    open_first = any(dims and (dims[0] is None or dims[0] == 1) for dims in everything)
    return names.pop() if len(names) == 1 and not open_first else None


def _batch_axes(
    declared: Mapping[str, Sequence[int | str | None]], symbol: str | None, free: bool
) -> dict[str, int | None]:
    axes = {name: _batch_axis(dims, symbol, free) for name, dims in declared.items()}
    if any(axis is not None for axis in axes.values()):
        return axes
    held = next((dims[0] for dims in declared.values() if len(dims) > 1 and _fixes_several(dims[0])), None)
    return {name: 0 if held is not None and dims[:1] == (held,) else None for name, dims in declared.items()}


def _is_state(value: ir.Value) -> bool:
    """Whether a value, cut up or not, is what a recurrent layer starts from."""
    uses = list(value.uses())
    return bool(uses) and all(
        (use.node.op_type in ("RNN", "GRU", "LSTM") and use.idx in (5, 6))
        or (use.node.op_type in LAYOUT and use.idx == 0 and all(_is_state(output) for output in use.node.outputs))
        for use in uses
    )


def fixed_batch_size(specs: Sequence[InputSpec]) -> int | None:
    """Return the number of samples that the file fixes, None where it fixes one or leaves it open."""
    sizes = (spec.declared[spec.batch_axis] for spec in specs if spec.batch_axis is not None)
    return next((size for size in sizes if isinstance(size, int) and size > 1), None)


def _batch_axis(dims: Sequence[int | str | None], symbol: str | None, free: bool) -> int | None:
    """Return the batch axis of one input; `free` says whether some input leaves axis 0 open."""
    if symbol is not None and symbol in dims:
        return list(dims).index(symbol)
    if not dims:
        return None
    if not isinstance(dims[0], int):
        return 0
    # A fixed 1 is the batch only where no input has a free one. Recurrent states are [layers, batch, hidden].
    if not free and dims[0] == 1 and len(dims) > 1:
        return 0
    recurrent = len(dims) == 3 and isinstance(dims[2], int) and dims[0] in (1, 2, 4)
    return 1 if recurrent and (dims[1] is None if free else dims[1] == 1) else None


def _default_size(layout: str | None, attempt: int) -> int:
    sizes = IMAGE_SIZES if layout else OTHER_SIZES
    return sizes[min(attempt, len(sizes) - 1)]


def attempts(model: ir.Model) -> int:
    """Return how many sizes there are to try for dimensions that the model leaves open."""
    tries = max(len(IMAGE_SIZES), len(OTHER_SIZES))
    return 2 * tries if any(cache.open for cache in find_caches(model)) else tries


def _given(shapes: Shapes, key: str) -> tuple[int, ...]:
    given = shapes[key]
    return (given,) if isinstance(given, int) else tuple(given)


def _check_names(
    shapes: Shapes, declared: Mapping[str, Sequence[int | str | None]], empty: Collection[int | str | None], name: str
) -> None:
    """Raise ShapeError for a size that is none, and for one of nothing. empty: what may have no entries."""
    symbols = {dim for dims in declared.values() for dim in dims if isinstance(dim, str)}
    for key, size in shapes.items():
        lowest = 0 if key in empty else 1
        for one in size if isinstance(size, Sequence) and key not in symbols - set(declared) else (size,):
            if not isinstance(one, int) or one < lowest:
                text = f"{name}: the size given for {key!r} is {one!r}; sizes are whole numbers from {lowest}"
                raise ShapeError(text)
        if key not in declared and key not in symbols:
            have = ", ".join(sorted(declared)) or "none"
            free = ", ".join(sorted(symbols)) or "none"
            raise ShapeError(
                f"{name}: a size was given for {key!r}, which is neither an input ({have}) nor a free dimension "
                f"({free}) of this model"
            )


def _check_fit(
    chosen: Sequence[int], dims: Sequence[int | str | None], axis: int | None, value: str, name: str
) -> None:
    if not fits(chosen, dims, axis):
        given, text = ",".join(map(str, chosen)), dims_text(dims)
        raise ShapeError(f"{name}: the shape {given} does not fit input {value!r}, which is declared as [{text}]")


def fits(sizes: Sequence[int], dims: Sequence[int | str | None], batch_axis: int | None) -> bool:
    """Return whether concrete sizes agree with declared dimensions; a batch of 1 may be given any size."""
    return len(sizes) == len(dims) and all(
        not isinstance(dim, int) or dim == size or (axis == batch_axis and dim == 1)
        for axis, (dim, size) in enumerate(zip(dims, sizes, strict=True))
    )


def dims_text(dims: Sequence[int | str | None], separator: str = ",") -> str:
    """Return declared dimensions for a message, `?` for one without a name."""
    return separator.join("?" if dim is None else str(dim) for dim in dims)
