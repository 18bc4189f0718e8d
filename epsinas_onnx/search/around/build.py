"""Writes the network of one architecture: the file's own graph with other widths, kernels, functions and blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from epsinas_onnx._util.fresh import fresh
from epsinas_onnx.search.around.activations import write_activation
from epsinas_onnx.search.around.blocks import Blocks
from epsinas_onnx.search.around.decisions import Decisions, chosen_widths
from epsinas_onnx.search.around.template import Template, dynamic_nodes, store


def build(template: Template, decisions: Decisions) -> ir.Model:
    """Return the network that `decisions` describe, without weights; the template is left as it is."""
    model = template.model.clone()
    builder = _Builder(model, template)
    builder.scale(decisions)
    builder.replace_kernels(decisions)
    builder.replace_functions(decisions)
    builder.stack(decisions)
    if decisions.text(template) != "original":
        for node in model.graph:
            for value in node.outputs:
                if not value.is_graph_output():
                    value.shape = None
    RemoveUnusedNodesPass()(model)
    return model


class _Builder:
    def __init__(self, model: ir.Model, template: Template) -> None:
        self.graph, self.template = model.graph, template
        self.nodes = {str(node.name): node for node in model.graph}
        self._taken = {str(value.name) for node in model.graph for value in node.outputs} | set(
            model.graph.initializers
        )
        self._lists: dict[tuple[int, ...], ir.Value] = {}

    def scale(self, decisions: Decisions) -> None:
        """Give every tensor, list and attribute that depends on a changed width its new size."""
        widths = chosen_widths(decisions, self.template)
        if not widths:
            return
        followed = self.template.followed
        equations = followed.equations
        lists: dict[tuple[str, int], dict[int, int]] = {}
        for place, form in followed.places.items():
            size = int(equations.measure(form, widths))
            if size != equations.measure(form):
                lists.setdefault((place.node, place.slot), {})[place.index] = size
        for (name, slot), changed in lists.items():
            node = self.nodes[name]
            read = node.inputs[slot]
            assert read is not None
            assert read.const_value is not None
            array = np.array(read.const_value.numpy())
            flat = array.reshape(-1)
            for index, size in changed.items():
                flat[index] = size
            node.replace_input_with(slot, self._list(array))
        for (name, attribute), form in followed.attributes.items():
            size = int(equations.measure(form, widths))
            self.nodes[name].attributes[attribute] = ir.AttrInt64(attribute, size)
        for tensor, forms in followed.tensors.items():
            sizes = [int(equations.measure(form, widths)) for form in forms]
            if sizes != [int(equations.measure(form)) for form in forms]:
                self._resize(tensor, sizes)

    def replace_kernels(self, decisions: Decisions) -> None:
        """Give convolutions kernels of another size, and the pads that keep the shape of what they give."""
        for name, size in decisions.kernel.items():
            kernel = self.template.kernels[name]
            node = self.nodes[kernel.node]
            weight = node.inputs[1]
            assert weight is not None
            maker = weight.producer()
            if maker is None:
                assert weight.const_value is not None
                dims = [int(dim) for dim in weight.const_value.shape]  # type: ignore[arg-type]
                self._resize(str(weight.name), [*dims[:2], *[size] * kernel.axes])
            else:
                sizes = maker.inputs[0]
                assert sizes is not None
                assert sizes.const_value is not None
                array = np.array(sizes.const_value.numpy())
                array[2:] = size
                maker.replace_input_with(0, self._list(array))
            if "kernel_shape" in node.attributes:
                node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", [size] * kernel.axes)
            pads = kernel.pads_for(size)
            if pads is not None:
                node.attributes["pads"] = ir.AttrInt64s("pads", pads)
                if node.attributes.get_string("auto_pad", "NOTSET") == "VALID":
                    del node.attributes["auto_pad"]

    def replace_functions(self, decisions: Decisions) -> None:
        """Write other activation functions in the place of those that are replaced."""
        values = {str(value.name): value for node in self.graph for value in node.outputs}
        values |= {str(value.name): value for value in self.graph.inputs}
        for name, function in decisions.activation.items():
            for site in self.template.functions[name].sites:
                source, result = values[site.source], values[site.result]
                last = self.nodes[site.nodes[-1]]
                kind = (result.dtype or source.dtype or ir.DataType.FLOAT).numpy()
                label = self._fresh(f"{site.result}.{function}")

                def number(entry: float, label: str = label, kind: np.dtype = kind) -> ir.Value:
                    return store(self.graph, self._fresh(f"{label}.number"), np.asarray(entry, kind))

                made = write_activation(function, source, label, self.template.opset, number)
                self.graph.insert_before(last, made)
                new = made[-1].outputs[0]
                result.replace_all_uses_with(new)
                result.name = self._fresh(f"{site.result}.replaced")
                new.name, new.type = site.result, result.type
                values[site.result] = new
                for node in made:
                    self.nodes[str(node.name)] = node
        self._values = values

    def stack(self, decisions: Decisions) -> None:
        """Leave blocks out, the last of a row first, or repeat the last one."""
        for name, depth in reversed(self.template.depths.items()):  # one may begin where the one before it ends
            count = decisions.depth.get(name)
            if count is None:
                continue
            blocks = depth.blocks
            first, last = self._values[blocks.cuts[min(count, blocks.count - 1)]], self._values[blocks.cuts[-1]]
            if count < blocks.count:
                last.replace_all_uses_with(first)
            else:
                self._repeat(blocks, first, last, count - blocks.count)

    def _repeat(self, blocks: Blocks, first: ir.Value, last: ir.Value, times: int) -> None:
        inside = self._block(first, last)
        own = set(inside)
        uses = [use for use in last.uses() if use.node not in own]
        behind = last.producer()
        assert behind is not None
        stored = self._stored_for(own)
        nodes = [node for node in self.graph if node in own or node in stored]
        given = last
        for copy in range(1, times + 1):
            values = {first: given}
            for value in list(self.graph.initializers.values()):
                if value in stored and value.const_value is not None:
                    array = value.const_value.numpy()
                    values[value] = store(self.graph, self._fresh(f"{value.name}.copy{copy}"), array)
            for node in nodes:
                twin = ir.Node(
                    node.domain, node.op_type, [values.get(v, v) if v is not None else None for v in node.inputs],
                    list(node.attributes.values()), overload=node.overload, num_outputs=len(node.outputs),
                    name=self._fresh(f"{node.name}.copy{copy}"), metadata_props=dict(node.metadata_props),
                )  # fmt: skip
                for old, new in zip(node.outputs, twin.outputs, strict=True):
                    new.name = self._fresh(f"{old.name}.copy{copy}") if old.name else old.name
                    new.type = old.type
                    values[old] = new
                self.graph.insert_after(behind, twin)
                behind = twin
            given = values[last]
        for use in uses:
            use.node.replace_input_with(use.idx, given)

    def _block(self, first: ir.Value, last: ir.Value) -> set[ir.Node]:
        """Return the nodes between two values."""
        below: set[ir.Node] = set()
        for node in self.graph:
            if any(value is first or (value is not None and value.producer() in below) for value in node.inputs):
                below.add(node)
        pending, found = [last.producer()], set[ir.Node]()
        while pending:
            maker = pending.pop()
            if maker is not None and maker in below and maker not in found:
                found.add(maker)
                pending += [value.producer() for value in maker.inputs if value is not None]
        return found

    def _stored_for(self, nodes: set[ir.Node]) -> set[ir.Node | ir.Value]:
        """Return what nodes alone read of stored tensors with several entries, and what makes them."""
        found: set[ir.Node | ir.Value] = set()
        dynamic = dynamic_nodes(self.graph)
        pending = [value for node in nodes for value in node.inputs if value is not None]
        while pending:
            value = pending.pop()
            maker = value.producer()
            if maker in dynamic or maker in found or value in found or value.is_graph_input():
                continue
            outputs = [value] if maker is None else maker.outputs
            if any(use.node not in nodes and use.node not in found for one in outputs for use in one.uses()):
                continue
            if maker is not None:
                found.add(maker)
                pending += [one for one in maker.inputs if one is not None]
            elif value.const_value is not None and str(value.name) in self.template.followed.tensors:
                found.add(value)
        return found

    def _resize(self, tensor: str, sizes: Sequence[int]) -> None:
        """Cut a stored tensor, or repeat it, to another size."""
        value = self.graph.initializers[tensor]
        assert value.const_value is not None
        array = value.const_value.numpy()
        for axis, size in enumerate(sizes):
            array = np.take(array, np.arange(size) % array.shape[axis], axis)
        value.const_value = ir.tensor(np.ascontiguousarray(array), name=tensor)
        value.shape = ir.Shape(array.shape)

    def _list(self, array: np.ndarray) -> ir.Value:
        """Return a stored list of integers, one for all that read it."""
        key = (array.dtype.itemsize, array.ndim, *map(int, array.reshape(-1)))
        if key not in self._lists:
            name = self._fresh("sizes." + "x".join(map(str, key[2:])))
            self._lists[key] = store(self.graph, name, array)
        return self._lists[key]

    def _fresh(self, stem: str) -> str:
        return fresh(stem, self._taken, first=2)
