"""Has the bodies of a serialised model hand out values that lie in them, through every body around them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx
from onnx import helper

from epsinas_onnx._util.fresh import fresh

_LOOPS = ("Loop", "Scan")


def hand_out(proto: onnx.ModelProto, wanted: Mapping[str, int]) -> dict[str, str]:
    """Make values in bodies outputs of the model, in place; return the names of these outputs by that of the value.

    wanted: the element type of each value by its name, which no other value has. A Loop and a Scan stack a value of all
    their turns along a first axis; of an If, the branch that is not taken gives an empty one instead.
    """
    taken = set(_names(proto.graph))
    handed = _Handing(wanted, taken).out_of(proto.graph)
    for outer, _, dtype in handed:
        proto.graph.output.append(_info(outer, dtype))
    return {name: outer for outer, name, _ in handed}


class _Handing:
    """Hands values out, one graph after the other."""

    def __init__(self, wanted: Mapping[str, int], taken: set[str]) -> None:
        self._wanted, self._taken = wanted, taken

    def out_of(self, graph: onnx.GraphProto) -> list[tuple[str, str, int]]:
        """Return what the bodies in a graph hand out to it: the name there, that of the value, and its type."""
        found = []
        for node in graph.node:
            held = {attribute.name: attribute.g for attribute in node.attribute if attribute.type == _GRAPH}
            if node.domain == "" and node.op_type in ("If", *_LOOPS):
                found += self._through(node, held)
        return found

    def _through(self, node: onnx.NodeProto, held: Mapping[str, onnx.GraphProto]) -> list[tuple[str, str, int]]:
        inner = {
            key: [
                *((one.name, one.name, self._wanted[one.name]) for one in body.input if one.name in self._wanted),
                *((n, n, self._wanted[n]) for one in body.node for n in one.output if n in self._wanted),
                *self.out_of(body),
            ]
            for key, body in held.items()
        }
        if not any(inner.values()):
            return []
        first = next(iter(held.values()))
        outputs = len(first.output) - (node.op_type == "Loop")
        for _ in range(len(node.output), outputs):  # outputs that the file leaves out
            node.output.append(fresh("epsinas.left_out", self._taken))
        if node.op_type == "Scan":
            more = sum(map(len, inner.values()))
            for attribute in node.attribute:
                if attribute.name in ("scan_output_axes", "scan_output_directions"):
                    attribute.ints.extend([0] * more)
        found = []
        for key, values in inner.items():
            for name, value, dtype in values:
                for other, body in held.items():
                    label = fresh(f"{value}/handed_out", self._taken)
                    if other == key:
                        body.node.add(op_type="Identity", input=[name], output=[label])
                    else:
                        empty = helper.make_tensor("", dtype, [0], [])
                        body.node.append(helper.make_node("Constant", [], [label], value=empty))
                    body.output.append(_info(label, dtype))
                outer = fresh(f"{value}/handed_out", self._taken)
                node.output.append(outer)
                found.append((outer, value, dtype))
        return found


_GRAPH = onnx.AttributeProto.GRAPH


def _info(name: str, dtype: int) -> onnx.ValueInfoProto:
    info = onnx.ValueInfoProto(name=name)
    info.type.tensor_type.elem_type = dtype
    return info


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (one.name for one in (*graph.input, *graph.initializer))
    for node in graph.node:
        yield from node.output
        for attribute in node.attribute:
            if attribute.type == _GRAPH:
                yield from _names(attribute.g)
