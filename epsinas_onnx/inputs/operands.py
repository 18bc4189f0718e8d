"""What operators ask of the integers that they read: the range of indices, and what lengths and offsets must be."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from epsinas_onnx.graph.analysis.caches import Decoding
from epsinas_onnx.graph.analysis.shapes import known_shape

_MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Demand:
    """What the operators that read an integer input ask of it.

    tokens: how many rows the smallest table has that it looks up. low, high: its entries lie in [low, high), where
    known. kind: what it is where an operator leaves no choice: `length` and `offset` (every entry is `value`),
    `positions` (from `value` on), `samples` (entry i is i), `offsets` (entry i is i times `value`), `ones`. value: the
    first place, too, where it is the input's name that speaks of positions.
    """

    tokens: int | None = None
    low: int | None = None
    high: int | None = None
    kind: str | None = None
    value: int = 0


@dataclass(frozen=True)
class Operand:
    """One operand of a node, with what is known of the node while the model decodes."""

    node: ir.Node
    slot: int
    state: Decoding

    def shape(self, slot: int) -> tuple[int, ...]:
        """Return the shape of another operand, empty where that is unknown or left out."""
        value = self.node.inputs[slot] if slot < len(self.node.inputs) else None
        return () if value is None else known_shape(value) or ()

    def size(self, slot: int, axis: int) -> int | None:
        """Return how long another operand is along an axis, None where that is unknown."""
        value = self.node.inputs[slot] if slot < len(self.node.inputs) else None
        dims = () if value is None or value.shape is None else tuple(value.shape)
        size = dims[axis] if -len(dims) <= axis < len(dims) else None
        return size if isinstance(size, int) else None

    def axis(self, name: str = "axis", default: int = 0) -> int:
        """Return an axis attribute."""
        return self.node.attributes.get_int(name, default)


Asks = Callable[[Operand], Demand | None]


def _below(high: int | None, low: int = 0) -> Demand | None:
    return None if high is None else Demand(low=low, high=max(high, low + 1))


def _rows(table: int, axis: int | None = None, name: str = "axis") -> Asks:
    """Indices into a table along an axis, the one of an attribute where None."""
    return lambda at: _below(at.size(table, at.axis(name) if axis is None else axis))


def _rank(signal: int) -> Asks:
    """An axis of another operand."""
    return lambda at: _below(len(at.shape(signal)) or None)


def _length(slot: int, axis: int) -> Asks:
    """As many as another operand has along an axis."""

    def asks(at: Operand) -> Demand | None:
        size = at.size(slot, axis)
        return None if size is None else Demand(kind="length", value=size)

    return asks


def _number(kind: str, value: int) -> Asks:
    return lambda at: Demand(kind=kind, value=value)


def _tuples(data: int) -> Asks:
    """Indices of several axes in a row, of which the smallest decides."""

    def asks(at: Operand) -> Demand | None:
        first = at.axis("batch_dims")
        shape, depth = at.shape(data)[first:], at.size(at.slot, -1)
        return _below(min(shape[: len(shape) if depth is None else depth], default=None))

    return asks


def _steps(at: Operand) -> Demand | None:
    """A recurrent layer's lengths: all of its steps."""
    return _length(0, at.axis("layout"))(at)


def _samples(at: Operand) -> Demand | None:
    """Which sample each region lies in."""
    samples = at.size(0, 0)
    return None if samples is None else Demand(kind="samples", high=samples)


def _unpooled(at: Operand) -> Demand | None:
    """Places in the flattened output, which is no smaller than the input."""
    shape = known_shape(at.node.outputs[0]) or at.shape(0)
    return _below(math.prod(shape) if shape else None)


def _bits(at: Operand) -> Demand | None:
    value = at.node.inputs[0]
    return None if value is None or value.dtype is None else _below(int(value.dtype.bitwidth))


def _divisor(at: Operand) -> Demand | None:
    return Demand(low=1)


def _first_place(at: Operand) -> Demand:
    return Demand(kind="offset", value=at.state.seen)


def _places(at: Operand) -> Demand:
    """Places of the tokens that are fed, behind those that caches hold."""
    return Demand(kind="positions", value=at.state.seen)


def _written(at: Operand) -> Demand:
    """Where tokens are written into a cache, which must hold all of them."""
    axis = at.axis("axis", -2)
    room, new = at.size(0, axis), at.size(1, axis)
    free = at.state.seen if room is None or new is None else room - new
    return Demand(kind="offset", value=max(0, min(at.state.seen, free)))


def _total(query: int, axis: int = 1, last: bool = False) -> Asks:
    """How many tokens were seen and are fed, or the place of the last."""

    def asks(at: Operand) -> Demand | None:
        fed = at.size(query, axis)
        new = at.state.new if fed is None else fed
        return None if new is None else Demand(kind="length", value=at.state.seen + new - last)

    return asks


def _valid_keys(at: Operand) -> Demand | None:
    """How many keys are no padding: those seen and fed, or all where no cache holds them."""
    keys = at.size(1, -2)
    total = _total(0, -2)(at)
    if keys is None or total is None:
        return total
    if at.node.inputs[1] is not None and at.node.inputs[1].producer() is None and not at.state.seen:
        return Demand(kind="length", value=keys)
    return Demand(kind="length", value=min(keys, total.value))


def _padding(query: int) -> Asks:
    """A mask of ones, or one length a sample."""

    def asks(at: Operand) -> Demand | None:
        rank = len(at.shape(at.slot))
        return _total(query)(at) if rank == 1 else Demand(kind="ones") if rank else None

    return asks


def _spread(tokens: int, axis: int = 0) -> Asks:
    """Where each sample's tokens start, one entry more than there are samples."""

    def asks(at: Operand) -> Demand | None:
        size, entries = at.size(tokens, axis), at.size(at.slot, 0)
        return None if size is None or entries is None else Demand(kind="offsets", value=size // max(1, entries - 1))

    return asks


_PAST = _number("offset", 0)
_ASKS: dict[tuple[str, str], dict[int, Asks]] = {
    ("", "Gather"): {1: _rows(0)},
    ("", "GatherElements"): {1: _rows(0)},
    ("", "GatherND"): {1: _tuples(0)},
    ("", "Scatter"): {1: _rows(0)},
    ("", "ScatterElements"): {1: _rows(0)},
    ("", "ScatterND"): {1: _tuples(0)},
    ("", "TensorScatter"): {2: _written},
    ("", "Attention"): {6: _valid_keys},
    ("", "RotaryEmbedding"): {3: _places},
    ("", "RNN"): {4: _steps},
    ("", "GRU"): {4: _steps},
    ("", "LSTM"): {4: _steps},
    ("", "ReverseSequence"): {1: lambda at: _length(0, at.axis("time_axis"))(at)},
    ("", "MaxUnpool"): {1: _unpooled},
    ("", "RoiAlign"): {2: _samples},
    ("", "TopK"): {1: lambda at: _below(None if (k := at.size(0, at.axis(default=-1))) is None else k + 1, 1)},
    ("", "Slice"): {3: _rank(0), 4: _divisor},
    ("", "Pad"): {3: _rank(0)},
    ("", "CumSum"): {1: _rank(0)},
    ("", "CumProd"): {1: _rank(0)},
    ("", "DFT"): {2: _rank(0)},
    ("", "STFT"): {1: _divisor},
    ("", "BitShift"): {1: _bits},
    ("", "Div"): {1: _divisor},
    ("", "Mod"): {1: _divisor},
    ("", "SequenceAt"): {1: _number("offset", 0)},
    ("", "NegativeLogLikelihoodLoss"): {1: _rows(0, 1)},
    ("", "SoftmaxCrossEntropyLoss"): {1: _rows(0, 1)},
    (_MICROSOFT, "Attention"): {3: _padding(0), 6: _first_place},
    (_MICROSOFT, "QAttention"): {5: _padding(0)},
    (_MICROSOFT, "LongformerAttention"): {6: _number("ones", 1)},
    (_MICROSOFT, "MultiHeadAttention"): {4: _padding(0), 8: _first_place, 9: _PAST},
    (_MICROSOFT, "DecoderMaskedSelfAttention"): {3: _padding(0), 6: _first_place, 7: _number("ones", 1), 8: _PAST},
    (_MICROSOFT, "DecoderMaskedMultiHeadAttention"): {3: _padding(0), 7: _first_place, 8: _number("ones", 1), 9: _PAST},
    (_MICROSOFT, "GroupQueryAttention"): {5: _total(0, last=True), 6: _total(0), 9: _places},
    (_MICROSOFT, "SparseAttention"): {7: _total(0), 8: _total(0)},
    (_MICROSOFT, "DynamicSparseAttention"): {9: _total(0, last=True), 10: _total(0), 13: _places},
    (_MICROSOFT, "PagedAttention"): {5: _spread(0), 6: _PAST, 7: _rows(3, 0)},
    (_MICROSOFT, "PackedAttention"): {3: _number("positions", 0), 4: _spread(0)},
    (_MICROSOFT, "PackedMultiHeadAttention"): {4: _number("positions", 0), 5: _spread(0)},
    (_MICROSOFT, "RemovePadding"): {1: _length(0, 1)},
    (_MICROSOFT, "RestorePadding"): {1: _number("positions", 0)},
    (_MICROSOFT, "GatedDeltaNet"): {3: _spread(0)},
    (_MICROSOFT, "RotaryEmbedding"): {1: _places},
    (_MICROSOFT, "MRotaryEmbedding"): {1: _places},
    (_MICROSOFT, "RMSNormRotary"): {2: _places},
    (_MICROSOFT, "EmbedLayerNormalization"): {0: _rows(2, 0), 1: _rows(4, 0), 7: _number("ones", 1), 8: _places},
    (_MICROSOFT, "QEmbedLayerNormalization"): {0: _rows(2, 0), 1: _rows(4, 0), 7: _number("ones", 1)},
    (_MICROSOFT, "GatherBlockQuantized"): {1: _rows(0, name="gather_axis")},
    (_MICROSOFT, "TorchEmbedding"): {1: _rows(0, 0)},
    (_MICROSOFT, "GatherND"): {1: _tuples(0)},
    (_MICROSOFT, "WordConvEmbedding"): {0: _rows(3, 0)},
    (_MICROSOFT, "NGramRepeatBlock"): {0: _rows(1, 1)},
    (_MICROSOFT, "CropAndResize"): {2: _samples, 3: _divisor},
    (_MICROSOFT, "ExpandDims"): {1: _rank(0)},
    (_MICROSOFT, "AttnLSTM"): {4: lambda at: _length(0, 0)(at), 12: _length(10, 1)},
    (_MICROSOFT, "DynamicQuantizeLSTM"): {4: lambda at: _length(0, 0)(at)},
}
"""By operator, what each operand of integers asks (ONNX operators; ONNX Runtime's contributed operators)."""


def asked(node: ir.Node, slot: int, state: Decoding) -> Demand | None:
    """Return what a node asks of the integers in a slot, None where it asks nothing that is known."""
    asks = _ASKS.get((node.domain, node.op_type), {}).get(slot)
    return None if asks is None else asks(Operand(node, slot, state))
