"""What can be changed in a network: read once from the file, for every architecture around it."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx.external_data_helper import load_external_data_for_tensor
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from epsinas_onnx.edit.strip import strip
from epsinas_onnx.graph.analysis.input_spec import InputSpec
from epsinas_onnx.graph.analysis.learned import learned_tensors
from epsinas_onnx.graph.analysis.roles import decide_roles
from epsinas_onnx.graph.analysis.shapes import attempts, free_dimensions, input_specs, known_shape
from epsinas_onnx.graph.dtypes import FLOATS
from epsinas_onnx.graph.evaluate import evaluate
from epsinas_onnx.graph.load import ModelSource, load_model, source_name
from epsinas_onnx.graph.passes.fold_shapes import fold_known_shapes
from epsinas_onnx.graph.passes.infer_shapes import infer_shapes, set_input_shapes
from epsinas_onnx.graph.traversal import StaticValues, node_bodies
from epsinas_onnx.search.around.activations import Site, find_activations
from epsinas_onnx.search.around.blocks import Blocks, find_blocks
from epsinas_onnx.search.around.cells import INTEGERS, MOST_CELLS
from epsinas_onnx.search.around.follow import Followed, follow
from epsinas_onnx.search.around.forms import Form, Term
from epsinas_onnx.search.around.kernels import Kernel, find_kernels
from epsinas_onnx.search.around.names import Names
from epsinas_onnx.search.around.rules import rule_for
from epsinas_onnx.search.around.trial import does_run, measured_shapes

BATCH = 2
"""Samples with which shapes are followed and variants are tried, where the file leaves the batch open."""
_ROUNDS = 8


@dataclass(frozen=True)
class Width:
    """Axes that change together. size: of the layer that names them; step: by how much it changes at least.

    width: which of the equations' widths this is; unit: by how much that one changes with each step.
    """

    name: str
    size: int
    step: int
    width: int
    unit: int


@dataclass(frozen=True)
class Function:
    """All uses of one activation function."""

    name: str
    sites: tuple[Site, ...]


@dataclass(frozen=True)
class Depth:
    """A row of equal blocks, or a single one."""

    name: str
    blocks: Blocks


@dataclass
class Template:
    """A network as it is, and what can be changed in it, each by its name.

    model: without weights; it is cloned before it is changed. name: for messages. notes: what a user should know.
    """

    model: ir.Model
    name: str
    specs: list[InputSpec]
    shapes: Mapping[str, tuple[int, ...]]
    followed: Followed
    widths: dict[str, Width] = field(default_factory=dict)
    depths: dict[str, Depth] = field(default_factory=dict)
    kernels: dict[str, Kernel] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def opset(self) -> int:
        """Return the version of the standard operator set."""
        return self.model.opset_imports.get("", 17)

    @cached_property
    def users(self) -> dict[int, frozenset[str]]:
        """Return the nodes whose stored operands or attributes change with each width, by the equations' number."""
        found: dict[int, set[str]] = {}
        equations = self.followed.equations

        def note(form: Form, nodes: Iterable[str]) -> None:
            for term in equations.resolve(form):
                if term.width is not None:
                    found.setdefault(term.width, set()).update(nodes)

        for place, form in self.followed.places.items():
            note(form, [place.node])
        for (node, _), form in self.followed.attributes.items():
            note(form, [node])
        stored = self.model.graph.initializers
        for tensor, forms in self.followed.tensors.items():
            readers = [str(use.node.name) for use in stored[tensor].uses()] if tensor in stored else []
            for form in forms:
                note(form, readers)
        return {width: frozenset(nodes) for width, nodes in found.items()}

    def unread(self, instead: Mapping[str, str]) -> frozenset[str]:
        """Return the nodes that no output needs where some values are replaced by others, all by name."""
        values = {str(value.name): value for node in self.model.graph for value in node.outputs}
        values |= {str(value.name): value for value in self.model.graph.inputs}
        pending: list[ir.Value | None] = list(self.model.graph.outputs)
        needed: set[ir.Node] = set()
        while pending:
            value = pending.pop()
            while value is not None and str(value.name) in instead:
                value = values[instead[str(value.name)]]
            node = None if value is None else value.producer()
            if node is not None and node not in needed:
                needed.add(node)
                pending += node.inputs
                pending += [one for body in node_bodies(node) for inner in body.all_nodes() for one in inner.inputs]
                pending += [one for body in node_bodies(node) for one in body.outputs]
        return frozenset(str(node.name) for node in self.model.graph if node not in needed)


def read_template(source: ModelSource) -> Template:
    """Return what can be changed in the network behind `source`; raises ModelError where it cannot be read."""
    return _template(_weightless(source), source_name(source))


def packed(source: ModelSource) -> bytes:
    """Return a network without its weights, small enough to be carried about; raises ModelError."""
    return zlib.compress(_weightless(source))


def _weightless(source: ModelSource) -> bytes:
    """Return a network without its weights, what else lies in data files read from there."""
    proto = strip(source)
    stored = [tensor for tensor in proto.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    folder = Path(source).parent if isinstance(source, (str, os.PathLike)) else Path()
    for tensor in stored:
        try:
            load_external_data_for_tensor(tensor, os.fspath(folder))
        except Exception:  # the file is missing, cut off, or elsewhere; nothing but numbers were in it
            proto.graph.initializer.remove(tensor)
            array = np.zeros(tuple(tensor.dims), onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, tensor.name))
        else:
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
    data: bytes = proto.SerializeToString()
    return data


@lru_cache(maxsize=4)
def unpacked(data: bytes, name: str) -> Template:
    """Return what can be changed in the network that `packed` gave."""
    return _template(zlib.decompress(data), name)


def _template(data: bytes, name: str) -> Template:
    proto = onnx.ModelProto.FromString(data)
    loaded = load_model(proto)
    model = loaded.model
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _fold_lists(model)
    _unshare_vectors(model.graph)
    specs = _specs(model, name)
    shapes = _all_shapes(model, specs)
    unknown = [value for node in model.graph for value in node.outputs if value.name and str(value.name) not in shapes]
    if unknown:
        shapes |= measured_shapes(model, specs, unknown)
    infer_shapes(model)
    static = StaticValues.of(model)
    learned = learned_tensors(model, decide_roles(model, name, None, static), static)
    followed = follow(model.graph, shapes, learned, rule_for)
    template = Template(model, name, specs, shapes, followed, notes=loaded.notes())
    dynamic = dynamic_nodes(model.graph)
    names = Names(model.graph)
    _add_widths(template, names)
    imports = dict(model.opset_imports)
    for kernel in find_kernels(model.graph, shapes, learned, names.of_node):
        template.kernels[kernel.name] = kernel
    sites: dict[str, list[Site]] = {}
    for site in find_activations(model.graph, dynamic, imports):
        sites.setdefault(site.function, []).append(site)
    template.functions = {key: Function(key, tuple(found)) for key, found in sites.items()}
    taken: set[str] = set()
    for blocks in find_blocks(model.graph, dynamic, shapes, imports):
        called = _unique(names.of_blocks(blocks), taken)
        template.depths[called] = Depth(called, blocks)
    return template


def _specs(model: ir.Model, name: str) -> list[InputSpec]:
    """Return shapes of the inputs with which the network runs; those that are tried first where it does not."""
    first = input_specs(model, name, BATCH, {})
    if not free_dimensions(model, name, {}):
        return first
    seen: list[list[InputSpec]] = []
    for attempt in range(attempts(model)):
        specs = input_specs(model, name, BATCH, {}, attempt)
        if specs not in seen and does_run(model, specs):
            return specs
        seen.append(specs)
    return first


def _fold_lists(model: ir.Model) -> None:
    """Compute ahead what follows from stored lists of integers alone, such as axes that are laid out anew."""
    for node in list(model.graph):
        operands = [None if value is None else value.const_value for value in node.inputs]
        if not operands or len(node.outputs) != 1 or node_bodies(node) or node.outputs[0].is_graph_output():
            continue
        if not all(one is not None and one.dtype in INTEGERS and one.size <= MOST_CELLS for one in operands):
            continue
        arrays = [np.asarray(one.numpy()) for one in operands if one is not None]
        made = evaluate(node, arrays, dict(model.opset_imports), MOST_CELLS)
        if made is None or ir.DataType.from_numpy(np.asarray(made[0]).dtype) not in INTEGERS:
            continue
        value = store(model.graph, str(node.outputs[0].name), np.asarray(made[0]), node)
        node.outputs[0].replace_all_uses_with(value)
        model.graph.remove(node, safe=True)


def _unshare_vectors(graph: ir.Graph) -> None:
    """Give every node a vector of its own where several read one: exporters merge those that hold equal numbers."""
    made = [(node.outputs[0], node) for node in graph if node.op_type == "ConstantOfShape"]
    for value, node in [*((value, None) for value in list(graph.initializers.values())), *made]:
        uses = list(value.uses())
        rank = _rank(value)
        if len(uses) < 2 or rank != 1 or value.dtype not in (None, *FLOATS) or value.is_graph_output():
            continue
        for count, use in enumerate(uses[1:], start=2):
            name = f"{value.name}.own{count}"
            while name in graph.initializers:
                name += "_"
            if node is None:
                assert value.const_value is not None
                own = store(graph, name, value.const_value.numpy())
            else:
                copy = ir.node("ConstantOfShape", node.inputs, dict(node.attributes), name=name)
                own = copy.outputs[0]
                own.name, own.type, own.shape = name, value.type, value.shape
                graph.insert_after(node, copy)
            use.node.replace_input_with(use.idx, own)


def _rank(value: ir.Value) -> int | None:
    if value.const_value is not None:
        return len(value.const_value.shape)
    producer = value.producer()
    sizes = None if producer is None or producer.op_type != "ConstantOfShape" else producer.inputs[0]
    tensor = None if sizes is None else sizes.const_value
    return None if tensor is None else tensor.size


def store(graph: ir.Graph, name: str, array: npt.NDArray[Any], instead: ir.Node | None = None) -> ir.Value:
    """Return a new initializer; `instead`: the node whose output it takes the name of."""
    if instead is not None:
        instead.outputs[0].name = f"{name}.computed"
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def _all_shapes(model: ir.Model, specs: list[InputSpec]) -> dict[str, tuple[int, ...]]:
    """Return the concrete shape of every value that inference finds one for, with these inputs."""
    measured = model.clone()
    set_input_shapes(measured, specs)
    found: dict[str, tuple[int, ...]] = {}
    for _ in range(_ROUNDS):
        before = len(found)
        values = [*measured.graph.inputs, *measured.graph.initializers.values()]
        values += [value for node in measured.graph for value in node.outputs]
        found |= {str(v.name): shape for v in values if v.name and (shape := known_shape(v)) is not None}
        if not fold_known_shapes(measured) and before == len(found):
            break
        infer_shapes(measured)
    return found


def dynamic_nodes(graph: ir.Graph) -> set[ir.Node]:
    """Return the nodes that depend on the graph's inputs, be it on their shapes alone."""
    found: set[ir.Node] = set()
    for node in graph:
        if node_bodies(node) or any(
            value is not None and (value.is_graph_input() or value.producer() in found) for value in node.inputs
        ):
            found.add(node)
    return found


def _unique(name: str, taken: set[str]) -> str:
    found, count = name, 1
    while found in taken:
        count += 1
        found = f"{name}.{count}"
    taken.add(found)
    return found


def _add_widths(template: Template, names: Names) -> None:
    equations = template.followed.equations
    steps = equations.steps(template.followed.all_forms())
    members: dict[int, list[int]] = {}
    for width, size in enumerate(equations.sizes):
        form = equations.resolve(_term(width))
        if len(form) == 1 and form[0].width in steps and size > 1:
            members.setdefault(int(form[0].width or 0), []).append(width)
    taken: set[str] = set()
    for root, widths in members.items():
        named = min(widths, key=lambda width: names.rank(equations.tensors[width], equations.ranks[width], width))
        size = equations.sizes[named]
        count = equations.sizes[root] // steps[root]
        if size % count:
            continue
        name = _unique(names.of_tensor(equations.tensors[named]), taken)
        template.widths[name] = Width(name, size, size // count, root, steps[root])


def _term(width: int) -> Form:
    """Return the size of one axis as a form."""
    return (Term(width, Fraction(1)),)
