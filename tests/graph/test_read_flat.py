"""The reader of flat graphs against onnx-ir's own, over every kind of file that is here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from epsinas_exporters import classics, spaces
from epsinas_onnx.graph.read_flat import read_flat

MODELS = sorted((Path(__file__).parents[2] / "models").glob("*.onnx"))


def same(proto: onnx.ModelProto) -> bool:
    """Whether both readers say the same, written out again."""
    found = read_flat(proto)
    assert found is not None
    return bool(ir.to_proto(found) == ir.to_proto(ir.from_proto(proto)))


@pytest.mark.parametrize("file", MODELS, ids=lambda file: str(file.stem))
def test_files(file: Path) -> None:
    """Files that exporters and this package wrote."""
    proto = onnx.load(file, load_external_data=False)
    if read_flat(proto) is None:
        pytest.skip("has bodies or functions")
    assert same(proto)


def test_most_files_are_flat() -> None:
    """Or nothing would be gained."""
    flat = [file for file in MODELS if read_flat(onnx.load(file, load_external_data=False)) is not None]
    assert len(flat) > len(MODELS) / 2


@pytest.mark.parametrize("name", ["nasbench101", "nasbench201", "darts", "nasbenchmacro"])
def test_networks_of_spaces(name: str) -> None:
    """Networks with their weights left out."""
    space = spaces.get(name)
    for arch in space.sample(3, 1):
        assert same(ir.to_proto(space.build(arch)))


@pytest.mark.parametrize("build", [classics.transformer, classics.lstm, classics.mobilenet_v2])
def test_classics(build: object) -> None:
    """Other kinds of operators."""
    assert callable(build)
    assert same(ir.to_proto(build()))


def everything() -> onnx.ModelProto:
    """A model in which every field is used that the reader knows."""
    kernel = helper.make_tensor("w", TensorProto.FLOAT, [1], [2.0])
    described = helper.make_tensor_value_info("w", TensorProto.FLOAT, [1])
    described.doc_string = "a weight"
    node = helper.make_node("Mul", ["x", "w"], ["y"], name="first", doc_string="says so")
    node.metadata_props.add(key="pkg.stack", value="somewhere")
    split = helper.make_node("Dropout", ["y"], ["z", ""], name="second")
    clip = helper.make_node("Clip", ["z", "", "w0"], ["out"], name="third")
    custom = helper.make_node("Mine", ["w"], ["unused"], domain="my.domain", kind="text", many=[1.5, 2.5], none=[3])
    custom.overload = "other"
    graph = helper.make_graph(
        [node, split, clip, custom], "main",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1]), described],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [kernel, helper.make_tensor("w0", TensorProto.FLOAT, [], [1.0])], doc_string="graph",
        value_info=[
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1]),
            helper.make_tensor_value_info("w0", TensorProto.FLOAT, []),
        ],
    )  # fmt: skip
    graph.metadata_props.add(key="of", value="graph")
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("my.domain", 1)]
    proto = helper.make_model(graph, opset_imports=imports, producer_name="me", producer_version="1", domain="here")
    proto.model_version, proto.doc_string = 3, "model"
    helper.set_model_props(proto, {"key": "value"})
    return proto


def test_every_field() -> None:
    """Names, descriptions, types, domains, left out operands and outputs."""
    proto = everything()
    assert same(proto)
    found = read_flat(proto)
    assert found is not None
    first = next(iter(found.graph))
    assert first.metadata_props == {"pkg.stack": "somewhere"}
    assert first.outputs[0].shape == ir.Shape(["batch", 1])
    assert found.graph.initializers["w"] in found.graph.inputs


def test_equal_attributes_are_one_object_until_a_node_gets_another() -> None:
    """Sharing is not seen from outside: to set an attribute of one node leaves the others as they are."""
    nodes = [helper.make_node("Softmax", [a], [b], axis=1) for a, b in (("x", "y"), ("y", "z"))]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xz"]
    found = read_flat(helper.make_model(helper.make_graph(nodes, "g", value[:1], value[1:])))
    assert found is not None
    first, second = found.graph
    assert first.attributes["axis"] is second.attributes["axis"]
    first.attributes["axis"] = ir.AttrInt64("axis", 0)
    assert second.attributes.get_int("axis") == 1


def _with_body() -> onnx.ModelProto:
    branch = helper.make_graph([], "b", [], [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    return _model([node], {"x": TensorProto.FLOAT, "c": TensorProto.BOOL})


def _with_function() -> onnx.ModelProto:
    proto = _model([helper.make_node("F", ["x"], ["y"], domain="d")])
    inner = [helper.make_node("Relu", ["a"], ["b"])]
    proto.functions.append(helper.make_function("d", "F", ["a"], ["b"], inner, [helper.make_opsetid("", 18)]))
    return proto


def _annotated() -> onnx.ModelProto:
    proto = _model([helper.make_node("Relu", ["x"], ["y"])])
    proto.graph.quantization_annotation.add(tensor_name="x").quant_parameter_tensor_names.add(key="k", value="v")
    return proto


def _odd() -> onnx.ModelProto:
    proto = _model([helper.make_node("Relu", ["x"], ["y"])])
    value = proto.graph.value_info.add()
    value.name = "y"
    value.type.sequence_type.SetInParent()
    return proto


def _model(nodes: list[onnx.NodeProto], inputs: dict[str, int] | None = None) -> onnx.ModelProto:
    given = [
        helper.make_tensor_value_info(name, kind, [1]) for name, kind in (inputs or {"x": TensorProto.FLOAT}).items()
    ]
    return helper.make_model(helper.make_graph(nodes, "g", given, [helper.make_tensor_value_info("y", 1, [1])]))


@pytest.mark.parametrize(
    "proto",
    [
        _with_body(), _with_function(), _annotated(), _odd(),
        _model([helper.make_node("Relu", ["z"], ["y"]), helper.make_node("Relu", ["x"], ["z"])]),
        _model([helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["y"])]),
        _model([helper.make_node("Relu", ["nobody"], ["y"])]),
        _model([helper.make_node("Relu", ["x"], ["another"])]),
    ],
    ids=["body", "function", "annotation", "a sequence of nothing", "order", "twice", "no maker", "no output"],
)  # fmt: skip
def test_what_is_left_to_onnx_ir(proto: onnx.ModelProto) -> None:
    """Everything that takes more than one walk, and what is not sound."""
    assert read_flat(proto) is None


def test_tensors_are_not_copied() -> None:
    """Data stays where protobuf has it until somebody reads it."""
    proto = everything()
    found = read_flat(proto)
    assert found is not None
    tensor = found.graph.initializers["w"].const_value
    assert isinstance(tensor, ir.TensorProtoTensor)
    assert np.array_equal(tensor.numpy(), [2.0])
