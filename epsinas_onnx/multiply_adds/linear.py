"""Counts the products of linear layers: convolutions, matrix products, contractions, recurrences, linear models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from epsinas_onnx.multiply_adds.call import UNKNOWN_SHAPE, Call, Dims, Formula, Uncountable, elements


def convolution(data: int = 0, weight: int = 1, last: bool = False) -> Formula:
    """Return the count of a convolution, deformable or not: one product an entry of the output and tap of its kernel.

    The weight is `[outputs, inputs of the group, *window]` in every layout; what a deformable one interpolates is not
    counted. data, weight: input slots. last: whether channels come last.
    """

    def count(call: Call) -> int:
        kernel = call.dims(weight)
        output = call.output()
        if output is None:
            output = convolved(call, data, weight, last or call.integer("channels_last", 0) == 1)
        return elements(output) * elements(kernel[1:])

    return count


def convolved(call: Call, data: int = 0, weight: int = 1, last: bool = False) -> Dims:
    """Return the shape of a convolution's output, from its operands and attributes."""
    x, kernel = call.dims(data), call.dims(weight)
    rank = len(kernel) - 2
    if len(x) != rank + 2:
        raise Uncountable(UNKNOWN_SHAPE)
    spatial = x[1:-1] if last else x[2:]
    ones = [1] * rank
    strides, dilations = call.attributes.get("strides", ones), call.attributes.get("dilations", ones)
    pads = call.attributes.get("pads", [0] * (2 * rank))
    auto = call.text("auto_pad", "NOTSET")
    sizes = []
    for axis, size in enumerate(spatial):
        reach = dilations[axis] * (kernel[2 + axis] - 1) + 1
        if auto.startswith("SAME"):
            sizes.append(-(-size // strides[axis]))
        else:
            around = pads[axis] + pads[rank + axis] if auto == "NOTSET" else 0
            if size + around < reach:
                raise Uncountable("its window is larger than its input")
            sizes.append((size + around - reach) // strides[axis] + 1)
    return (x[0], *sizes, kernel[0]) if last else (x[0], kernel[0], *sizes)


def transposed_convolution(data: int = 0, weight: int = 1) -> Formula:
    """Return the count of a transposed convolution: one product an entry of the input and tap that it spreads to.

    What padding cuts off again counts.
    """
    return lambda call: elements(call.dims(data)) * elements(call.dims(weight)[1:])


def causal_convolution(call: Call) -> int:
    """Count a depthwise convolution whose output has as many positions as its input."""
    return elements(call.output() or call.dims(0)) * elements(call.dims(1)[1:])


def matrix_product(left: int = 0, right: int = 1) -> Formula:
    """Return the count of a matrix product as NumPy defines it, transposed or not: entries of the output times sum.

    left, right: input slots.
    """

    def count(call: Call) -> int:
        a = call.dims(left)
        if not a:
            raise Uncountable("an operand is a scalar")
        row = -2 if call.integer("transA", 0) and len(a) > 1 else -1
        summed = a[0 if row == -2 and call.integer("transBatchA", 0) else row]
        b = call.shape(right)
        if b and not call.integer("transBatchB", 0):
            other = b[-1 if len(b) == 1 or call.integer("transB", 0) else -2]
            if other != summed:
                raise Uncountable(f"it would multiply rows of {summed} by columns of {other}")
        return elements(multiplied(call, left, right)) * summed

    return count


def multiplied(call: Call, left: int = 0, right: int = 1) -> Dims:
    """Return the shape of a matrix product, from its operands where it is not known."""
    output = call.output()
    if output is not None:
        return output
    a, b = call.dims(left), call.dims(right)
    if not a or not b or call.integer("transBatchA", 0) or call.integer("transBatchB", 0):
        raise Uncountable(UNKNOWN_SHAPE)
    rows = () if len(a) == 1 else (a[-1 if call.integer("transA", 0) else -2],)
    columns = () if len(b) == 1 else (b[-2 if call.integer("transB", 0) else -1],)
    batch = []
    ahead, behind = a[:-2], b[:-2]
    for index in range(max(len(ahead), len(behind)), 0, -1):
        sizes = [dims[-index] for dims in (ahead, behind) if index <= len(dims)]
        batch.append(0 if 0 in sizes else max(sizes))
    return (*batch, *rows, *columns)


def general_product(left: int = 0, right: int = 1) -> Formula:
    """Return the count of a Gemm: entries of the left matrix times columns of the right one."""

    def count(call: Call) -> int:
        b, output = call.shape(right), call.output()
        if b is not None and len(b) == 2:
            columns = b[0 if call.integer("transB", 0) else 1]
        elif output:
            columns = output[-1]
        else:
            raise Uncountable(UNKNOWN_SHAPE)
        return elements(call.dims(left)) * columns

    return count


def rows_times(*widths: str) -> Formula:
    """Return the count of products of rows with matrices whose numbers of columns are attributes."""
    return lambda call: elements(call.dims(0)) * sum(call.required(name) for name in widths)


def square(call: Call) -> int:
    """Count a product of rows with a matrix of N and K, which is transposed or not."""
    return elements(call.dims(0)[:-1]) * call.required("N") * call.required("K")


def adapted(call: Call) -> int:
    """Count a product with a matrix and one of low rank beside it."""
    columns, rank = call.required("N"), call.dims(3)[0]
    up = columns if elements(call.dims(5)) else 0
    return elements(call.dims(0)) * (columns + rank) + elements(call.dims(0)[:-1]) * rank * up


def packed_rows(call: Call) -> int:
    """Count a product with a matrix of `[columns, packed row]`."""
    return elements(call.dims(0)) * call.dims(1)[0]


def packed_blob(call: Call) -> int:
    """Count a product with a matrix of which only the output tells the number of columns."""
    output = call.output()
    if output is None:
        raise Uncountable(UNKNOWN_SHAPE)
    return elements(call.dims(0)) * output[-1]


def projected(slot: int = 1) -> Formula:
    """Return the count of a product with a stored matrix of `[inputs, columns]`, whatever follows it."""
    return lambda call: elements(call.dims(0)) * call.dims(slot)[-1]


def gated_bias(call: Call) -> int:
    """Count the gates of a relative position bias: each head's features times one matrix."""
    return elements(call.dims(0)) * call.dims(3)[-1]


def router(call: Call) -> int:
    """Count the projection to experts' scores, where the operator does it itself."""
    return elements(call.dims(0)) * call.dims(2)[0] if call.has(2) else 0


def affine_grid(call: Call) -> int:
    """Count the product of each sample's matrix with every place of a grid."""
    output = call.output()
    if output is None:
        raise Uncountable(UNKNOWN_SHAPE)
    return elements(output) * call.dims(0)[-1]


def distances(call: Call) -> int:
    """Count the squared differences between rows that are summed."""
    return elements(call.dims(0)) * call.dims(1)[0]


def low_rank_mix(call: Call) -> int:
    """Count the three projections of a hyper-connection, and the sum over its streams."""
    streams = call.dims(0)
    matrices = sum(elements(call.dims(slot)) for slot in (2, 3, 4))
    return elements(streams[:-1]) * matrices + elements(streams)


def streams_mix(call: Call) -> int:
    """Count the mixing of streams by a matrix of them, where there is one."""
    return elements(call.dims(0)) * call.dims(3)[-1] if call.has(3) else 0


def every_entry(call: Call) -> int:
    """Count one product an entry of the first operand, of which sums are taken."""
    return elements(call.dims(0))


def recurrence(call: Call) -> int:
    """Count a recurrent layer: at every step, each sample's entry times both matrices, in every direction."""
    return elements(call.dims(0, 3)[:2]) * (elements(call.dims(1)) + elements(call.dims(2)))


def linear_model(call: Call) -> int:
    """Count a linear classifier or regressor."""
    return _samples(call) * len(call.attributes.get("coefficients", ()))


def support_vectors(call: Call) -> int:
    """Count a support vector machine: the samples times its vectors, and their kernels times its coefficients."""
    numbers = len(call.attributes.get("support_vectors", ())) + len(call.attributes.get("coefficients", ()))
    return _samples(call) * numbers


def _samples(call: Call) -> int:
    x = call.dims(0)
    return x[0] if len(x) > 1 else 1


def contraction(call: Call) -> int:
    """Count an Einsum as it is computed: pair by pair from left to right, each over all indices that the pair has.

    An index that a pair's later operands and the output do without, and that only one of the pair has, is summed
    before, which takes no products; a single operand takes none. Two operands so cost the space of all their indices.
    This is what ONNX Runtime and PyTorch do; an order that costs less is not looked for.
    """
    terms, result = _terms(call.text("equation"), [call.dims(slot) for slot in range(len(call.inputs))])
    sizes: dict[str, int] = {}
    for name, size in chain.from_iterable(terms):
        sizes[name] = size if sizes.get(name, 1) == 1 else sizes[name]
    labels = [{name for name, _ in term} for term in terms]
    total, held = 0, labels[0]
    for index, term in enumerate(labels[1:], 1):
        wanted = set(result).union(*labels[index + 1 :])
        pair = (held & (term | wanted)) | (term & (held | wanted))
        total += elements([sizes[name] for name in pair])
        held = pair & wanted
    return total


def _terms(equation: str, shapes: Sequence[Dims]) -> tuple[list[list[tuple[str, int]]], list[str]]:
    """Return each operand's indices with their sizes, and the indices of the output; an ellipsis has one a place."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    texts = left.split(",")
    if len(texts) != len(shapes):
        raise Uncountable("its equation has another number of operands")
    terms = []
    for text, dims in zip(texts, shapes, strict=True):
        before, dots, after = text.partition("...")
        hidden = len(dims) - len(before) - len(after)
        if hidden < 0 or (hidden and not dots):
            raise Uncountable("its equation has another number of indices")
        names = [*before, *(f"...{place}" for place in range(hidden, 0, -1)), *after]
        terms.append(list(zip(names, dims, strict=True)))
    names = [name for name, _ in chain.from_iterable(terms)]
    hidden_names = sorted({name for name in names if name.startswith("...")}, reverse=True)
    if arrow:
        result = [*right.replace("...", ""), *(hidden_names if "..." in right else [])]
    else:
        result = [name for name in dict.fromkeys(names) if names.count(name) == 1 or name.startswith("...")]
    return terms, result
