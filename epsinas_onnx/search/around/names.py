"""Finds names for what can be changed, in the words of the file."""

from __future__ import annotations

import re

import onnx_ir as ir

from epsinas_onnx.search.around.blocks import LAYERS, Blocks

_MADE_UP = re.compile(
    r"(val|node|n|v|t|tensor|Constant|onnx|p2o|_)?_?\d+|node_.*_?\d+|.*::.*|.*_(output|out)_?\d+|.*\.own\d+_*",
    re.IGNORECASE,
)
_ENDINGS = re.compile(r"[._/](weight|bias|kernel|gamma|beta|scale|W|B|running_mean|running_var|in_proj_weight)(:0)?$")


def label(text: str) -> str:
    """Return the name of a layer, as a tensor or a node of it is called, in letters that an architecture may hold."""
    text = _ENDINGS.sub("", text.strip("/"))
    return re.sub(r"[^A-Za-z0-9_./-]+", "_", text) or "layer"


def is_made_up(text: str) -> bool:
    """Whether an exporter made up a name, which then tells nothing."""
    return _MADE_UP.fullmatch(text) is not None


class Names:
    """Finds a name for what can be changed, in the words of the file."""

    def __init__(self, graph: ir.Graph) -> None:
        self.nodes = {str(node.name): node for node in graph}
        self.order = {name: index for index, name in enumerate(self.nodes)}
        self.by_tensor: dict[str, str] = {}
        for node in graph:
            for value in node.inputs:
                if value is not None and (value.is_initializer() or _is_filled(value)):
                    self.by_tensor.setdefault(str(value.name), str(node.name))

    def rank(self, tensor: str, axes: int, width: int) -> tuple[bool, bool, int, int]:
        """Return how little a tensor suits as the one that names a width: the first layer's weight suits best."""
        order = self.order.get(self.by_tensor.get(tensor, ""), len(self.order))
        return is_made_up(tensor), axes < 2, order, width

    def of_node(self, node: ir.Node) -> str:
        """Return what a layer is called: as its weight, or as the node where the weight's name tells nothing."""
        for value in node.inputs[1:]:
            if value is not None and self._stored(value) and not is_made_up(str(value.name)):
                return label(str(value.name))
        uses = list(node.outputs[0].uses())
        if len(uses) == 1 and uses[0].node.op_type == "Add":
            for value in uses[0].node.inputs:
                if value is not None and self._stored(value) and not is_made_up(str(value.name)):
                    return label(str(value.name))
        return _node_label(node)

    def of_tensor(self, tensor: str) -> str:
        """Return the name of the layer that a stored tensor belongs to."""
        node = self.nodes.get(self.by_tensor.get(tensor, ""))
        if not is_made_up(tensor) or node is None:
            return label(tensor)
        return _node_label(node)

    def of_blocks(self, blocks: Blocks) -> str:
        """Return what the layers of a row of blocks have in common in their names."""
        layers = []
        for each in blocks.nodes:
            nodes = [self.nodes[name] for name in each if self.nodes[name].op_type in LAYERS]
            stored = [node for node in nodes if any(v is not None and self._stored(v) for v in node.inputs[1:])]
            called = [self.of_node(node) for node in stored or nodes]
            layers.append([name for name in called if not is_made_up(name)] or called)
        shared = _common_start([text for each in layers for text in each])
        if shared:
            return shared
        first, last = (_common_start(each) or next(iter(each), blocks.cuts[0]) for each in (layers[0], layers[-1]))
        return label(first if first == last else f"{first}-{last}")

    @staticmethod
    def _stored(value: ir.Value) -> bool:
        tensor = value.const_value
        return _is_filled(value) or (value.is_initializer() and tensor is not None and tensor.size > 1)


def _is_filled(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "ConstantOfShape"


def _node_label(node: ir.Node) -> str:
    text = str(node.name).strip("/")
    head, _, last = text.rpartition("/")
    return label(head if head and last.rstrip("0123456789_") == node.op_type else text)


def _common_start(names: list[str]) -> str:
    """Return the parts with which all dotted names begin."""
    separated = [name.replace("/", ".").split(".") for name in names]
    common = []
    for parts in zip(*separated, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ".".join(common)
