"""Refuses a model that is no sound ONNX: names that are no text, operands, attributes or bodies that are missing.

All that is asked here is what the rest of the package takes for granted of every file.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn, TypeAlias

import onnx
from onnx import AttributeProto, TensorProto

from epsinas_onnx.errors import ModelError
from epsinas_onnx.graph.tensor_data import held_problem

_Key: TypeAlias = tuple[str, str, str]
"""Domain, name and overload of a function."""

_NEWEST = 2**31
_LONGEST = 4096
"""Entries of the largest tensor whose data is looked at here; larger ones are looked at where they are read."""
_ELEMENT_TYPES = frozenset(TensorProto.DataType.values())
_ATTRIBUTE_TYPES = frozenset(AttributeProto.AttributeType.values()) - {AttributeProto.UNDEFINED}
_FIELDS = {
    AttributeProto.TENSOR: "t", AttributeProto.GRAPH: "g", AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    AttributeProto.TYPE_PROTO: "tp", AttributeProto.TENSORS: "tensors", AttributeProto.GRAPHS: "graphs",
    AttributeProto.SPARSE_TENSORS: "sparse_tensors", AttributeProto.TYPE_PROTOS: "type_protos",
}  # fmt: skip
"""Attribute types that are messages, and where these are; other types leave out what is 0."""
_HOLDING = frozenset(_FIELDS.values())
_LISTS = frozenset(field for field in _HOLDING if field.endswith("s"))
_SINGLE = frozenset(kind for kind, field in _FIELDS.items() if field not in _LISTS)
_KINDS = AttributeProto.AttributeType
_LISTS_SIZES = {"ConstantOfShape": 0, "Expand": 1, "Reshape": 1, "Tile": 1}
"""Operators of the standard domain that take a list of sizes, and where."""
_LISTS_FROM = 7  # older operator sets take other operands
_BODIES = frozenset({"If", "Loop", "Scan"})
_SHORT = 512
"""Bytes of the longest node that is compared with those before it."""
_MOST_ENTRIES = 2**60
"""So many that the bytes of them, of any element type, still have a number of 64 bits."""
_NAMES_A_TYPE = frozenset({"to", "dtype", "output_dtype", "stash_type", "softmax_precision"})
_VALUES = frozenset(
    {"value", "sparse_value", "value_float", "value_floats", "value_int", "value_ints", "value_string",
     "value_strings"}
)  # fmt: skip
_OF_DOMAIN = {"ai.onnx": ""}


def check_soundness(proto: onnx.ModelProto, name: str) -> None:
    """Raise ModelError for the first thing in a model that contradicts the ONNX specification so that nothing fits.

    Operators that onnx does not know pass, and so does data of large tensors, which is not looked at.
    """
    _Checker(proto, name).model()


@dataclass(frozen=True, eq=False)
class _Form:
    """What onnx's schema asks of a node.

    needed: whether an input may not be left out, one by one, for as many as there must be. most: inputs there may be.
    outputs: how many there must be, and may be. required: names of attributes. types: of attributes, by name.
    """

    needed: tuple[bool, ...]
    most: int
    outputs: tuple[int, int]
    required: tuple[str, ...]
    types: Mapping[str, int]


@lru_cache(maxsize=4096)
def _form(op_type: str, domain: str, version: int) -> _Form | None:
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None
    single = onnx.defs.OpSchema.FormalParameterOption.Single
    needed = tuple(
        schema.inputs[min(slot, len(schema.inputs) - 1)].option == single for slot in range(schema.min_input)
    )
    return _Form(
        needed,
        schema.max_input,
        (schema.min_output, schema.max_output),
        tuple(key for key, attribute in schema.attributes.items() if attribute.required),
        {key: int(attribute.type.value) for key, attribute in schema.attributes.items()},  # type: ignore[attr-defined]
    )


class _Checker:
    """Walks a model once."""

    def __init__(self, proto: onnx.ModelProto, name: str) -> None:
        self.proto, self.name = proto, name
        self.functions: set[_Key] = set()
        self.passed: set[tuple[object, ...]] = set()  # nodes without their names, as most of a network's are alike

    def refuse(self, what: str) -> NoReturn:
        raise ModelError(f"{self.name}: {what}; export the model again")

    def model(self) -> None:
        proto = self.proto
        self.texts("the model", (proto.producer_name, proto.producer_version, proto.domain))
        self.entries("the model", proto.metadata_props)
        for function in proto.functions:
            self.texts("a function", (function.domain, function.name, function.overload))
            key = (function.domain, function.name, function.overload)
            if key in self.functions:
                self.refuse(f"defines the function {function.domain}::{function.name} twice")
            self.functions.add(key)
        for function in proto.functions:
            self.function(function)
        self.graph(proto.graph, self.imports(proto.opset_import, "the model"), frozenset())
        for training in proto.training_info:
            for graph in (training.initialization, training.algorithm):
                self.texts("the training graph", (tensor.name for tensor in graph.initializer))

    def imports(self, entries: Iterable[onnx.OperatorSetIdProto], what: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for entry in entries:
            self.texts(f"an operator set of {what}", (entry.domain,))
            domain = _OF_DOMAIN.get(entry.domain, entry.domain)
            if not int(domain == "") <= entry.version < _NEWEST:
                self.refuse(
                    f"{what} imports operator set {entry.version} of {domain or 'ai.onnx'!r}, and none has that number"
                )
            found.setdefault(domain, entry.version)
        return found

    def function(self, function: onnx.FunctionProto) -> None:
        what = f"the function {function.domain}::{function.name}"
        parameters = {*function.attribute, *(attribute.name for attribute in function.attribute_proto)}
        self.texts(what, (*function.input, *function.output, *function.attribute))
        for attribute in function.attribute_proto:
            self.attribute(attribute, what, {}, ())
        made = {*function.input}
        imports = self.imports(function.opset_import, what)
        for node in function.node:
            self.node(node, imports, parameters)
            self.made(node.output, made, what)

    def graph(self, graph: onnx.GraphProto, imports: Mapping[str, int], parameters: Collection[str]) -> None:
        what = f"the graph {graph.name!r}"
        self.texts("a graph", (graph.name,))
        self.texts(f"an output of {what}", (value.name for value in graph.output))
        made: set[str] = set()
        for value in graph.input:
            self.value(value, what)
            self.made((value.name,), made, what)
        if "" in made or any(not value.name for value in graph.input):
            self.refuse(f"an input of {what} has no name")
        stored: set[str] = set()
        for tensor in graph.initializer:
            self.tensor(tensor, f"tensor {tensor.name!r}")
            self.made((tensor.name,), stored, what)
        for sparse in graph.sparse_initializer:
            self.sparse(sparse, f"tensor {sparse.values.name!r}")
            self.made((sparse.values.name,), stored, what)
        made |= stored
        ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
        for node in graph.node:
            self.node(node, imports, parameters)
            slot = _LISTS_SIZES.get(node.op_type, len(node.input)) if not node.domain else len(node.input)
            if slot < len(node.input) and ranks.get(node.input[slot], 1) != 1 and imports.get("", 0) >= _LISTS_FROM:
                self.refuse(f"node {node.name!r} ({node.op_type}) takes the sizes in input {slot}, which are no list")
            self.made(node.output, made, what)
        for value in (*graph.output, *graph.value_info):
            self.value(value, what)

    def made(self, names: Iterable[str], made: set[str], what: str) -> None:
        for name in names:
            if name in made:
                self.refuse(f"{what} makes the value {name!r} twice")
            if name:
                made.add(name)

    def value(self, value: onnx.ValueInfoProto, what: str) -> None:
        self.texts(f"a value of {what}", (value.name,))
        self.type(value.type, f"the value {value.name!r} of {what}")

    def type(self, kind: onnx.TypeProto, what: str) -> None:
        which = kind.WhichOneof("value")
        if which in ("tensor_type", "sparse_tensor_type"):
            tensor = getattr(kind, which)
            if tensor.elem_type not in _ELEMENT_TYPES:
                self.refuse(f"{what} has the element type {tensor.elem_type}, which ONNX does not know")
            for dim in tensor.shape.dim:
                if not isinstance(dim.dim_param, str):
                    self.refuse(f"{what} has a size whose name is no UTF-8 text")
        elif which in ("sequence_type", "optional_type"):
            self.type(getattr(kind, which).elem_type, what)

    def node(self, node: onnx.NodeProto, imports: Mapping[str, int], parameters: Collection[str]) -> None:
        op_type, domain, names = node.op_type, node.domain, [*node.input, *node.output]
        try:
            "".join((node.name, op_type, domain, *names))
        except TypeError:
            self.refuse(f"a node ({op_type}) has a name that is no UTF-8 text")
        key = self.key(node, imports) if "" not in names and not parameters and op_type not in _BODIES else None
        if key is None or key not in self.passed:
            self.each_node(node, imports, parameters)
        if key is not None:
            self.passed.add(key)

    def key(self, node: onnx.NodeProto, imports: Mapping[str, int]) -> tuple[object, ...] | None:
        """Return all that counts of a node beside its names, None where that is much."""
        held = node.attribute
        if node.metadata_props or node.device_configurations or (held and node.ByteSize() > _SHORT):
            return None
        attributes = [one.SerializeToString() for one in held]
        domain = node.domain
        version = imports.get(_OF_DOMAIN.get(domain, domain))
        return node.op_type, domain, version, node.overload, len(node.input), len(node.output), *attributes

    def each_node(self, node: onnx.NodeProto, imports: Mapping[str, int], parameters: Collection[str]) -> None:
        op_type, domain = node.op_type, node.domain
        what = f"node {node.name or next(iter(node.output), '')!r} ({op_type})"
        if not op_type:
            self.refuse(f"{what} names no operator")
        if node.metadata_props:
            self.entries(what, node.metadata_props)
        if any(not placed.configuration_id for placed in node.device_configurations):
            self.refuse(f"{what} has a configuration of devices without its name")
        key = (domain, op_type, node.overload)
        domain = _OF_DOMAIN.get(domain, domain)
        is_known = domain in imports and key not in self.functions
        form = _form(op_type, domain, imports[domain]) if is_known else None
        if node.attribute or (form is not None and (form.required or op_type == "Constant")):
            self.attributes(node, form, what, imports, parameters)
        if form is not None:
            self.operands(node, form, what)

    def operands(self, node: onnx.NodeProto, form: _Form, what: str) -> None:
        inputs = node.input
        if len(inputs) < len(form.needed):
            self.refuse(f"{what} has {len(inputs)} inputs, and needs {len(form.needed)}")
        for slot, needed in enumerate(form.needed):
            if needed and not inputs[slot]:
                self.refuse(f"{what} leaves out input {slot}, which it needs")
        if len(inputs) > form.most and any(inputs[form.most :]):
            self.refuse(f"{what} has {len(inputs)} inputs, and takes no more than {form.most}")
        fewest, most = form.outputs
        if len(node.output) < fewest or any(node.output[most:]):
            made = fewest if fewest == most else f"{fewest} to {most}"
            self.refuse(f"{what} has {len(node.output)} outputs, and makes {made}")

    def attributes(
        self, node: onnx.NodeProto, form: _Form | None, what: str, imports: Mapping[str, int],
        parameters: Collection[str],
    ) -> None:  # fmt: skip
        seen: set[str] = set()
        for attribute in node.attribute:
            name = attribute.name
            if name in seen:
                self.refuse(f"{what} has the attribute {name!r} twice")
            seen.add(name)
            self.attribute(attribute, what, imports, parameters)
            if form is None:
                continue
            wanted = form.types.get(name, attribute.type)
            if wanted != attribute.type:
                had, wants = _KINDS.Name(attribute.type), _KINDS.Name(wanted)
                self.refuse(f"{what} has an attribute {name!r} of type {had}, where it takes {wants}")
            if name in _NAMES_A_TYPE and not attribute.ref_attr_name and attribute.i not in _ELEMENT_TYPES:
                self.refuse(f"{what} has the attribute {name!r} = {attribute.i}, which is no element type of ONNX")
        if form is None:
            return
        missing = next((name for name in form.required if name not in seen), None)
        if missing is not None:
            self.refuse(f"{what} has no attribute {missing!r}, which it needs")
        if node.op_type == "Constant" and len(seen & _VALUES) != 1:
            self.refuse(f"{what} holds {len(seen & _VALUES)} values, where it must hold one")
        if node.op_type == "Constant" and len(seen) != 1:
            self.refuse(f"{what} has the attribute {min(seen - _VALUES)!r}, where it may hold nothing but its value")
        if node.op_type in _BODIES:
            self.bodies(node, what)

    def attribute(
        self, attribute: AttributeProto, what: str, imports: Mapping[str, int], parameters: Collection[str]
    ) -> None:
        """Look at an attribute; parameters: what it may refer to."""
        self.texts(f"an attribute of {what}", (attribute.name, attribute.ref_attr_name))
        kind = attribute.type
        if kind not in _ATTRIBUTE_TYPES:
            self.refuse(f"{what} has an attribute {attribute.name!r} without a type that ONNX knows ({kind})")
        if attribute.ref_attr_name and attribute.ref_attr_name not in parameters:
            self.refuse(
                f"{what} takes its attribute {attribute.name!r} from {attribute.ref_attr_name!r}, which no function "
                f"around it has"
            )
        held = {field.name for field, _ in attribute.ListFields()} & _HOLDING
        wanted = _FIELDS.get(kind)
        if held - {wanted}:
            self.refuse(
                f"{what} has an attribute {attribute.name!r} that holds what its type {_KINDS.Name(kind)} does not"
            )
        if kind in _SINGLE and not held and not attribute.ref_attr_name:
            self.refuse(f"{what} has an attribute {attribute.name!r} that holds nothing")
        for field in held:
            found = getattr(attribute, field)
            for one in found if field in _LISTS else (found,):
                inside = f"the attribute {attribute.name!r} of {what}"
                match one:
                    case TensorProto():
                        self.tensor(one, inside)
                    case onnx.SparseTensorProto():
                        self.sparse(one, inside)
                    case onnx.TypeProto():
                        self.type(one, inside)
                    case _:
                        self.graph(one, imports, parameters)

    def bodies(self, node: onnx.NodeProto, what: str) -> None:
        """Refuse a body that does not take what its operator feeds it, or does not give what is asked of it."""
        fed, given = len(node.input), len(node.output)
        wanted = {"If": (0, given), "Loop": (fed, given + 1), "Scan": (fed, given)}[node.op_type]
        for attribute in node.attribute:
            if attribute.type != AttributeProto.GRAPH or attribute.ref_attr_name:
                continue
            found = (len(attribute.g.input), len(attribute.g.output))
            if found != wanted and not (
                node.op_type == "Scan" and found == (fed - 1, given)
            ):  # set 8 feeds lengths too
                self.refuse(
                    f"{what} has a body {attribute.name!r} with {found[0]} inputs and {found[1]} outputs, where it "
                    f"needs {wanted[0]} and {wanted[1]}"
                )

    def tensor(self, tensor: TensorProto, what: str) -> None:
        self.texts(f"a tensor ({what})", (tensor.name,))
        if tensor.data_type not in _ELEMENT_TYPES or not tensor.data_type:
            self.refuse(f"{what} has the element type {tensor.data_type}, which ONNX does not know")
        dims = tensor.dims
        entries = math.prod(dims)
        if any(dim < 0 for dim in dims) or entries >= _MOST_ENTRIES:
            self.refuse(f"{what} declares the shape {list(dims)}, which no tensor has")
        if tensor.data_location == TensorProto.EXTERNAL:
            for entry in tensor.external_data:
                self.texts(f"where the data of {what} lies", (entry.key, entry.value))
        elif entries <= _LONGEST:
            problem = held_problem(tensor)
            if problem is not None:
                self.refuse(f"{what} {problem}")

    def sparse(self, sparse: onnx.SparseTensorProto, what: str) -> None:
        self.tensor(sparse.values, what)
        self.tensor(sparse.indices, f"the indices of {what}")
        if any(dim < 0 for dim in sparse.dims) or math.prod(sparse.dims) >= _MOST_ENTRIES:
            self.refuse(f"{what} declares the shape {list(sparse.dims)}, which no tensor has")

    def entries(self, what: str, entries: Iterable[onnx.StringStringEntryProto]) -> None:
        for entry in entries:
            self.texts(f"metadata of {what}", (entry.key, entry.value))

    def texts(self, what: str, names: Iterable[str]) -> None:
        """Refuse names that are no text, which a protobuf gives as bytes."""
        try:
            "".join(names)
        except TypeError:
            self.refuse(f"{what} has a name that is no UTF-8 text")
