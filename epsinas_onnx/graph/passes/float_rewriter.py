"""Walks a graph of integer arithmetic in order, and gives each node the float values that stand for its operands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from epsinas_onnx.graph.analysis.layer_uses import is_input
from epsinas_onnx.graph.dtypes import FLOATS
from epsinas_onnx.graph.operators import Part, find_operand
from epsinas_onnx.graph.tensor_summary import read
from epsinas_onnx.graph.traversal import StaticValues
from epsinas_onnx.graph.unpacked import UNPACKED, Unpacked, stands_for

_MOST_CHANNELS = 2**24
_INTEGERS = frozenset(
    {ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16, ir.DataType.INT4, ir.DataType.UINT4}
)
# Operators that move or compare quantised values, which they may do with the real ones just as well.
_PASSES_ON = frozenset(
    {"MaxPool", "GlobalMaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Concat", "Slice", "Split",
     "Gather", "Resize", "Upsample", "Identity", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "Relu", "Max", "Min"}
)  # fmt: skip


@dataclass
class Dequantised:
    """How much was turned back. activations: QuantizeLinear nodes left out. layers: integer operators replaced."""

    activations: int = 0
    layers: int = 0

    def notes(self) -> list[str]:
        """Return what a reader of the score should know."""
        parts = []
        if self.layers:
            parts.append(f"{self.layers} integer layers computed in float")
        if self.activations:
            parts.append(f"{self.activations} quantisations of activations left out")
        return [f"quantised model: {', '.join(parts)}"] if parts else []


Handler: TypeAlias = "Callable[[Rewriter, ir.Node], None]"
"""Replaces one node."""


class Rewriter:
    """Walks a graph in order.

    real: the float value that stands for each quantised one, and for each that was made of one. integers: the
    quantised ones. products: sums of integer products before they were scaled. scales: what dynamic quantisation
    computes to scale them by. biases: float biases that were divided by such a scale.
    """

    def __init__(self, static: StaticValues, done: Dequantised, handlers: Mapping[str, Handler]) -> None:
        self.static, self.done, self._handlers = static, done, handlers
        self.real: dict[ir.Value, ir.Value] = {}
        self.integers: set[ir.Value] = set()
        self.products: set[ir.Value] = set()
        self.scales: set[ir.Value] = set()
        self.biases: set[ir.Value] = set()
        self.replaced: list[ir.Node] = []
        self.names: set[str] = set()
        self._at: tuple[ir.Graph, ir.Node] | None = None

    def visit(self, graph: ir.Graph, node: ir.Node) -> None:
        """Replace a node that computes with integers, or give a node the float values that stand for its operands."""
        self._at = (graph, node)
        handler = self._handlers.get(node.op_type)
        if handler is not None and node.domain in ("", "com.microsoft"):
            handler(self, node)
            self._scales(node)
        elif not self._looked_up(node) and not self._scaled(node):
            quantised = any(value in self.integers for value in node.inputs)
            for slot, value in enumerate(node.inputs):
                if value is not None and value in self.real:
                    node.replace_input_with(slot, self.real[value])
            for output in node.outputs if quantised and node.op_type in _PASSES_ON else ():
                output.type = ir.TensorType(ir.DataType.FLOAT)
                self.real[output] = output
                self.integers.add(output)

    def _scales(self, node: ir.Node) -> None:
        """Let the scales and zero points of a node's packed operands stand for the float values that these became."""
        for slot, value in enumerate(node.inputs):
            operand = find_operand(node, slot)
            if value is None or operand is None or operand.of is None or not isinstance(operand.what, Part):
                continue
            packed = node.inputs[operand.of]
            if packed is None or packed not in self.static:
                continue
            real = self.real.get(packed)
            known = stands_for(packed) or ([] if real is None else [Unpacked(str(real.name), _bits(packed))])
            for unpacked in known:
                Unpacked(unpacked.name, unpacked.bits, operand.what).note(value)

    def _looked_up(self, node: ir.Node) -> bool:
        """Look up in the float table where rows of an integer one are dequantised afterwards: an embedding."""
        if node.op_type != "Gather" or node.domain != "" or not _is_dequantised(node.outputs[0]):
            return False
        table, indices = node.inputs[:2]
        if table is None or table not in self.static or _element_type(table) not in _INTEGERS or indices in self.static:
            return False
        name = f"{node.outputs[0].name}.float"
        kept = [attribute for key, attribute in node.attributes.items() if key == "axis"]
        self.real[node.outputs[0]] = self.node("Gather", [self.signal(table), indices], name, kept)
        self.integers.add(node.outputs[0])
        self.replaced.append(node)
        return True

    def _scaled(self, node: ir.Node) -> bool:
        """Pass on the sum of a product of integers where a node makes it float, scales it or adds a bias."""
        values = [value for value in node.inputs if value is not None]
        product = next((value for value in values if value in self.products), None)
        if product is None:
            return self._rescaled(node, values)
        if node.op_type not in ("Cast", "Mul", "Add"):
            return False
        real = self.real[product]
        if node.op_type == "Add":
            others = [self.signal(value) for value in values if value is not product]
            real = self.node("Add", [real, *others], f"{node.outputs[0].name}.float")
        self.real[node.outputs[0]] = real
        if node.op_type != "Mul":
            self.products.add(node.outputs[0])
        self.replaced.append(node)
        return True

    def _rescaled(self, node: ir.Node, values: Sequence[ir.Value]) -> bool:
        """Pass on a scale that is made of scales, and a bias that is divided by one and rounded."""
        if node.op_type == "Mul" and self.scales & set(values):
            self.scales.add(node.outputs[0])
        elif (node.op_type == "Div" and values[-1] in self.scales) or (
            node.op_type in ("Floor", "Round", "Cast") and values[0] in self.biases
        ):
            self.real[node.outputs[0]] = self.real.get(values[0], values[0])
            self.biases.add(node.outputs[0])
            self.integers.add(node.outputs[0])
        else:
            return False
        self.replaced.append(node)
        return True

    def outputs(self, graph: ir.Graph) -> None:
        """Let the outputs of a graph be the float values that stand for them, under their own names."""
        for position, value in enumerate(graph.outputs):
            real = self.real.get(value)
            if real is None or real.is_graph_input() or real.is_graph_output():
                continue
            value.name, real.name = f"{value.name}.quantised", value.name
            graph.outputs[position] = real

    def signal(self, value: ir.Value | None) -> ir.Value | None:
        """Return the float value of an operand: a quantised activation's, or that of a stored integer tensor."""
        if value is None or value in self.real:
            return None if value is None else self.real[value]
        if _element_type(value) in FLOATS:
            return value
        one = self._constant(f"{value.name}.scale", np.asarray(1, np.float32))
        self.real[value] = self.node("DequantizeLinear", [value, one], f"{value.name}.float")
        return self.real[value]

    def replace(
        self, node: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], keep: Sequence[str] = (),
        domain: str = "", relu: bool = False, bias: ir.Value | None = None,
    ) -> None:  # fmt: skip
        """Put a float operator in the place of an integer one, with the attributes that `keep` names."""
        attributes = [attribute for name, attribute in node.attributes.items() if name in keep]
        named = [*inputs]
        while named and named[-1] is None:
            named.pop()
        name = f"{node.outputs[0].name}.float"
        made = self.node(op_type, named, name, attributes, domain, str(node.name), len(node.outputs))
        results = list(made.producer().outputs)  # type: ignore[union-attr]
        if bias is not None:
            results[0] = self.node("Add", [results[0], bias], f"{name}.biased")
        if relu:
            results[0] = self.node("Relu", [results[0]], f"{name}.relu")
        self.real |= dict(zip(node.outputs, results, strict=True))
        self.integers.update(node.outputs)
        self.replaced.append(node)
        self.done.layers += 1

    def cuts(self, x: ir.Value | None, zero: ir.Value | None, dtype: ir.DataType | None = None) -> bool:
        """Whether a quantisation cuts off what is negative: its zero point is the smallest integer there is."""
        if x is not None and (x in self.static or is_input(x, self.static)):
            return False
        if zero is None:
            return dtype in (None, ir.DataType.UINT8, ir.DataType.UINT16)
        tensor = ir.convenience.get_const_tensor(zero)
        if tensor is None or tensor.dtype not in _INTEGERS or not tensor.size:
            return False
        smallest = {ir.DataType.INT8: -128, ir.DataType.INT16: -32768, ir.DataType.INT4: -8}.get(tensor.dtype, 0)
        array = read(tensor, _MOST_CHANNELS)
        return array is not None and bool((array.astype(np.int64) == smallest).all())

    def node(
        self, op_type: str, inputs: Sequence[ir.Value | None], name: str, attributes: Sequence[ir.Attr] = (),
        domain: str = "", node_name: str | None = None, outputs: int = 1,
    ) -> ir.Value:  # fmt: skip
        """Insert a node in front of the one that is visited, and return its first output."""
        assert self._at is not None
        graph, at = self._at
        while name in self.names:
            name += "'"
        self.names.add(name)
        made = ir.Node(domain, op_type, inputs, attributes, name=node_name or name, num_outputs=outputs)
        for index, output in enumerate(made.outputs):
            output.name, output.type = f"{name}.{index}" if index else name, ir.TensorType(ir.DataType.FLOAT)
        graph.insert_before(at, made)
        if all(value is None or value in self.static for value in inputs):
            self.static.values.update(made.outputs)
        return made.outputs[0]

    def unpacked(self, packed: ir.Value, dims: tuple[int, ...], bits: int) -> ir.Value:
        """Return a stored float tensor that stands for a packed one; its values are never read."""
        assert self._at is not None
        name = f"{packed.name}.float[{'x'.join(map(str, dims))}]"
        graph, _ = self._at
        if name not in graph.initializers:
            shape = ir.Shape(dims)
            tensor = ir.LazyTensor(
                lambda: ir.tensor(np.zeros(dims, np.float32)), dtype=ir.DataType.FLOAT, shape=shape, name=name
            )
            value = ir.Value(name=name, shape=shape, type=ir.TensorType(ir.DataType.FLOAT), const_value=tensor)
            value.meta[UNPACKED] = True
            graph.register_initializer(value)
            self.static.values.add(value)
        Unpacked(name, bits).note(packed)
        return graph.initializers[name]

    def _constant(self, name: str, array: np.ndarray) -> ir.Value:
        assert self._at is not None
        graph, _ = self._at
        if name not in graph.initializers:
            tensor = ir.tensor(array, name=name)
            value = ir.Value(
                name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
            )
            graph.register_initializer(value)
            self.static.values.add(value)
        return graph.initializers[name]


def _element_type(value: ir.Value) -> ir.DataType | None:
    """Return what a value holds; the shapes and types of computed values were not inferred yet."""
    node = value.producer()
    if value.dtype is None and node is not None and node.op_type in ("Constant", "ConstantOfShape"):
        filled = node.attributes.get("value")
        return ir.DataType.FLOAT if filled is None else filled.as_tensor().dtype
    return value.dtype


def _bits(packed: ir.Value) -> int:
    dtype = _element_type(packed)
    return 8 if dtype is None else dtype.bitwidth


def _is_dequantised(value: ir.Value) -> bool:
    """Whether a value, moved about or not, becomes float by a scale and a zero point."""
    return any(
        use.node.op_type == "DequantizeLinear"
        or (use.node.op_type in _PASSES_ON and any(_is_dequantised(output) for output in use.node.outputs))
        for use in value.uses()
    )
