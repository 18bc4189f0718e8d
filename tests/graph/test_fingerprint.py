"""The fingerprint of the weightless graph: what keeps it, and that everything that is architecture changes it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from epsinas_onnx import ModelError, fill, strip
from epsinas_onnx.graph.fingerprint import canonical_graph, fingerprint
from epsinas_onnx.graph.load import load_model
from tests.builders import PERCEPTRON, build, external, perceptron, save
from tests.scoring.test_score_invariance import beside, copied, graphs, renamed, reordered

ROOT = Path(__file__).parents[2]
MODELS = sorted((ROOT / "models").rglob("*.onnx"))

IMAGE = "(float[N,3,8,8] x) => (float[N,M] y) { "
BLOCKS = build(
    IMAGE + "[c1] a = Conv<pads = [1,1,1,1]>(x, W, B)  [n1] b = BatchNormalization<epsilon = 0.001>(a, s, t, m, v)"
    "  [r1] c = Relu(b)  [c2] d = Conv<pads = [1,1,1,1]>(c, V)  [sub] e = Sub(c, d)  [k] f = Mul(e, half)"
    "  [clip] g = Clip(f, low, high)  [up] h = Resize(g, , scales)  [pool] i = GlobalAveragePool(h)"
    "  [flat] j = Flatten(i)  [table] l = Add(j, P)  [last] y = Gemm<transB = 1>(l, L, Z) }",
    W=(8, 3, 3, 3), B=(8,), s=(8,), t=(8,), m=(8,), v=(8,), V=(8, 8, 3, 3), half=np.array(0.5, np.float32),
    low=np.array(0, np.float32), high=np.array(6, np.float32), scales=np.array([1, 1, 2, 2], np.float32), P=(2, 8)[1:],
    L=(5, 8), Z=(5,),
)  # fmt: skip
BODIES = build(
    "(float[N,16] x, bool c) => (float[N,16] y) { h = MatMul(x, W)  o = Tanh(h)  r = If(c) <"
    "then_branch = t () => (float[N,16] a) { p = MatMul(x, V)  a = Add(p, h) }, "
    "else_branch = e () => (float[N,16] b) { b = MatMul(o, W) }>  y = Relu(r) }",
    W=(16, 16), V=(16, 16),
)  # fmt: skip
TIED = build(
    "(int64[N,4] x) => (float[N,4,40] y) { e = Gather(E, x)  h = MatMul(e, W)  T = Transpose<perm = [1,0]>(E)"
    "  y = MatMul(h, T) }",
    E=(40, 16), W=(16, 16),
)  # fmt: skip


LARGE = ("resnet50", "t5-transformers", "mobilenet_v2", "transformer")


def exports(archive: str, *wanted: str) -> dict[str, onnx.ModelProto]:
    with zipfile.ZipFile(ROOT / "tests" / "data" / archive) as files:
        return {name: onnx.load_from_string(files.read(name)) for name in files.namelist() if name.startswith(wanted)}


def sources() -> dict[str, onnx.ModelProto]:
    """Return small models of every kind; the large ones of models/ are taken once, elsewhere."""
    small = [path for path in MODELS if path.stem not in LARGE and not path.stem.startswith("nb201-c")]
    found = {path.stem: onnx.load(path) for path in small}
    found |= exports("same_network.zip", "lstm", "mlp") | exports("folded_exports.zip", "torch-unet", "torch-vgg11_bn")
    return found | {"blocks": BLOCKS, "bodies": BODIES, "tied": TIED}


SOURCES = sources()


@cache
def expected(name: str) -> str:
    return fingerprint(SOURCES[name])


def floats(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every stored tensor of several floats."""
    for graph in graphs(proto.graph):
        made = [attribute.t for node in graph.node for attribute in node.attribute if node.op_type == "Constant"]
        for tensor in (*graph.initializer, *made):
            if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) > 1 and tensor.name != "scales":
                yield tensor


def trained(proto: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    made = copied(fill(proto, seed=seed) if sum(len(graph.node) for graph in graphs(proto.graph)) < 100 else proto)
    rng = np.random.default_rng(seed)
    for tensor in floats(made):
        tensor.CopyFrom(numpy_helper.from_array(rng.random(tensor.dims, np.float32), tensor.name))
    return made


def as_nodes(proto: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """Turn initializers into Constant nodes, and Constant nodes into initializers, at random."""
    made, rng = copied(proto), np.random.default_rng(seed)
    for graph in graphs(made.graph):
        constants = [node for node in graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]
        chosen = [tensor for tensor in graph.initializer if rng.random() < 0.5]
        for node in constants:
            if rng.random() < 0.5:
                graph.initializer.add().CopyFrom(node.attribute[0].t)
                graph.initializer[-1].name = node.output[0]
                graph.node.remove(node)
        nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in chosen]
        for tensor in chosen:
            graph.initializer.remove(tensor)
        rest = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
        graph.ClearField("node")
        graph.node.extend([*nodes, *rest])
    return made


def retold(proto: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """Change all that says nothing: producer, descriptions, metadata, IR version, what nothing reads."""
    made = copied(proto)
    made.producer_name, made.producer_version, made.doc_string = f"other {seed}", "9", "text"
    made.ir_version = max(made.ir_version, 10)
    made.metadata_props.add(key="author", value="somebody")
    made.graph.name = "another"
    for node in made.graph.node:
        node.doc_string = "text"
        node.metadata_props.add(key="namespace", value="model/layer")
    made.graph.initializer.append(numpy_helper.from_array(np.zeros((3, seed % 5 + 1), np.float32), "unused"))
    made.graph.node.append(helper.make_node("Relu", [made.graph.node[-1].output[0]], ["dead"], name="dead"))
    made.graph.ClearField("value_info")
    return made


WAYS: dict[str, Callable[[onnx.ModelProto, int], Any]] = {
    "renamed": lambda proto, seed: renamed(proto),
    "reordered": reordered,
    "renamed and reordered": lambda proto, seed: reordered(renamed(proto), seed),
    "stripped": lambda proto, seed: strip(proto),
    "anonymous": lambda proto, seed: strip(proto, anonymise=True),
    "filled": lambda proto, seed: fill(proto, "xavier", seed=seed),
    "trained": trained,
    "stored as nodes": as_nodes,
    "retold": retold,
    "serialised": lambda proto, seed: ir.to_proto(ir.from_proto(proto)).SerializeToString(),
    "an ir.Model": lambda proto, seed: ir.from_proto(proto),
}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.sampled_from(sorted(SOURCES)), st.sampled_from(sorted(WAYS)), st.integers(0, 1000))
def test_a_copy_of_a_network_has_its_fingerprint(name: str, way: str, seed: int) -> None:
    proto = SOURCES[name]
    if way in ("filled", "trained") and load_model(proto).nodes > 100:
        way = "reordered"  # filling large ones takes seconds
    assert fingerprint(WAYS[way](proto, seed)) == expected(name), (name, way)


@pytest.mark.parametrize("way", sorted(WAYS))
@pytest.mark.parametrize("name", ["blocks", "bodies", "tied", "lstm"])
def test_every_way_of_copying_keeps_it(name: str, way: str) -> None:
    assert fingerprint(WAYS[way](SOURCES[name], 5)) == expected(name)


@pytest.mark.parametrize("path", [path for path in MODELS if path.stem in LARGE], ids=lambda path: path.stem)
def test_stripping_keeps_that_of_large_models(path: Path) -> None:
    assert fingerprint(strip(path, anonymise=True)) == fingerprint(path)


def test_networks_that_differ_have_different_fingerprints() -> None:
    found = {str(path): expected(path.stem) if path.stem in SOURCES else fingerprint(path) for path in MODELS}
    assert len(set(found.values())) == len(found)


def test_fingerprints_stay_from_release_to_release() -> None:
    pinned = {
        "mlp": "eab38964d5912c2af70994664f89aeb0",
        "lstm": "34f6530a65c4e545667b453c55f2fe7c",
        "nb201-s-s-s-s-s-s": "aae88e703537bf33a0e1219d540519e6",
        "blocks": "d20673fb18e526ef58a5bbf54951c6d5",
        "bodies": "4166bd9ce6a5ef36ae10bf8502de4ed9",
    }
    assert {name: expected(name) for name in pinned} == pinned  # baselines hold them: a new one is an API break


def test_two_exporters_may_write_the_same_graph() -> None:
    for one, other in (
        ("mlp-torch.onnx", "mlp-torchscript.onnx"),
        ("torch-unet.default.onnx", "torch-unet.old.onnx"),
    ):
        assert expected(one) == expected(other)


def test_a_folded_export_is_another_graph_and_tells_no_more_than_one_without_normalisation() -> None:
    folded, unfolded, plain = (f"torch-vgg11{form}.onnx" for form in ("_bn.old", "_bn.unfolded", ".old"))
    assert expected(folded) != expected(unfolded)
    assert expected(folded) == fingerprint(exports("folded_exports.zip", plain)[plain])


@pytest.mark.parametrize("opset", [7, 8, 9, 13, 20, 21])
@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_stripping_keeps_it_in_every_operator_set_and_type(opset: int, dtype: int) -> None:
    if dtype == TensorProto.BFLOAT16 and opset < 13:
        pytest.skip("MatMul takes bfloat16 from operator set 13")
    proto = build("(float[N,16] x) => (float[N,16] y) { y = MatMul(x, W) }", opset=opset, W=(16, 16))
    values = numpy_helper.to_array(proto.graph.initializer[0])
    proto.graph.initializer[0].CopyFrom(helper.make_tensor("W", dtype, (16, 16), values.ravel().tolist()))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = dtype
    assert fingerprint(strip(proto)) == fingerprint(proto)


def test_weights_that_are_cast_are_stripped_to_the_same() -> None:
    graph = "(bfloat16[N,16] x) => (bfloat16[N,16] y) { w = Cast<to = 16>(W)  y = MatMul(x, w) }"
    proto = build(graph, W=(16, 16))
    assert fingerprint(strip(proto)) == fingerprint(proto)


def test_data_in_files_is_not_needed(tmp_path: Path) -> None:
    for name in ("blocks", "mlp"):
        assert fingerprint(beside(fill(SOURCES[name]), tmp_path)) == expected(name)
    graph = "(float[N,64] x) => (float[N,64] y) { h = MatMul(x, W)  k = Mul(h, c)  y = Add(k, P) }"
    with_files = external(build(graph), "gone.bin", W=(64, 64), c=(), P=(2, 64))
    found = fingerprint(save(with_files, tmp_path / "a.onnx"))
    assert found == fingerprint(with_files.SerializeToString())  # from memory, it is not looked for anywhere
    assert found != fingerprint(
        save(external(build(graph), "gone.bin", W=(64, 64), c=(), P=(64,)), tmp_path / "b.onnx")
    )


def test_defaults_may_be_left_out() -> None:
    short = "(float[N,3,8,8] x) => (float[N,4,6,6] y) { c = Conv(x, W)  y = LeakyRelu(c) }"
    long = (
        "(float[N,3,8,8] x) => (float[N,4,6,6] y) { c = Conv<kernel_shape = [3,3], strides = [1,1], pads = [0,0,0,0],"
        ' dilations = [1,1], group = 1, auto_pad = "NOTSET">(x, W)  y = LeakyRelu<alpha = 0.01>(c) }'
    )
    assert fingerprint(build(short, W=(4, 3, 3, 3))) == fingerprint(build(long, W=(4, 3, 3, 3)))


def test_a_default_that_an_operator_set_changed_is_another_attribute() -> None:
    graph = "(float[N,3,8] x) => (float[N,3,8] y) { y = Softmax(x) }"
    last = "(float[N,3,8] x) => (float[N,3,8] y) { y = Softmax<axis = -1>(x) }"
    assert fingerprint(build(graph, 11)) != fingerprint(build(graph, 13))
    assert fingerprint(build(graph, 13)) == fingerprint(build(last, 13)) == fingerprint(build(graph, 21))


def test_functions_are_what_they_stand_for() -> None:
    inside = build(
        "(float[N,16] x) => (float[N,16] y) { y = local.layer(x, W) }",
        functions='<domain: "local", opset_import: ["" : 21]> layer (a, w) => (c) { b = MatMul(a, w)  c = Relu(b) }',
        W=(16, 16),
    )
    plain = build("(float[N,16] x) => (float[N,16] y) { b = MatMul(x, W)  y = Relu(b) }", W=(16, 16))
    assert fingerprint(inside) == fingerprint(plain)


def test_weights_that_are_inputs_are_stored_ones() -> None:
    graph = "(float[N,16] x, float[16,16] fc.weight) => (float[N,16] y) { b = MatMul(x, fc.weight)  y = Relu(b) }"
    stored = "(float[N,16] x) => (float[N,16] y) { b = MatMul(x, W)  y = Relu(b) }"
    assert fingerprint(build(graph.replace("fc.weight", "weight"))) == fingerprint(build(stored, W=(16, 16)))


def test_equal_vectors_may_be_stored_once() -> None:
    graph = "(float[N,8] x) => (float[N,8] y) { a = Gemm(x, W, B)  b = Relu(a)  y = Gemm(b, V, C) }"
    apart = build(graph, W=(8, 8), V=(8, 8), B=(8,), C=(8,))
    once = build(graph.replace("V, C", "V, d").replace("{", "{ d = Identity(B) "), W=(8, 8), V=(8, 8), B=(8,))
    assert fingerprint(apart) == fingerprint(once)


def test_very_deep_graphs_are_walked() -> None:
    names = ["x", *(f"v{index}" for index in range(1500)), "y"]
    nodes = [helper.make_node("Relu", [one], [two]) for one, two in pairwise(names)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "deep", ends[:1], ends[1:])
    assert len(canonical_graph(load_model(helper.make_model(graph))).lines) == 1501


def node(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(one for graph in graphs(proto.graph) for one in graph.node if name in (one.name, one.output[0]))


def resized(proto: onnx.ModelProto, **arrays: Any) -> None:
    for tensor in proto.graph.initializer:
        if tensor.name in arrays:
            given = arrays[tensor.name]
            array = np.ones(given, np.float32) if isinstance(given, tuple) else np.asarray(given, np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def set_attribute(one: onnx.NodeProto, **values: Any) -> None:
    kept = [attribute for attribute in one.attribute if attribute.name not in values]
    made = [helper.make_attribute(key, value) for key, value in values.items()]
    copies = [onnx.AttributeProto.FromString(attribute.SerializeToString()) for attribute in [*kept, *made]]
    one.ClearField("attribute")
    one.attribute.extend(copies)


def swap(one: onnx.NodeProto) -> None:
    one.input[0], one.input[1] = one.input[1], one.input[0]


def bypass(proto: onnx.ModelProto, name: str) -> None:
    gone = node(proto, name)
    for one in proto.graph.node:
        for slot, value in enumerate(one.input):
            if value == gone.output[0]:
                one.input[slot] = gone.input[0]
    proto.graph.node.remove(gone)


def custom(proto: onnx.ModelProto, name: str) -> None:
    node(proto, name).domain = "my.domain"
    proto.opset_import.add(domain="my.domain", version=1)


def insert(proto: onnx.ModelProto, name: str, op_type: str) -> None:
    reader = node(proto, name)
    made = helper.make_node(op_type, [reader.input[0]], ["inserted"])
    proto.graph.node.insert(list(proto.graph.node).index(reader), made)
    node(proto, name).input[0] = "inserted"


def typed(name: str, dims: list[str] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)


def declared(value: onnx.ValueInfoProto, axis: int, size: int) -> None:
    value.type.tensor_type.shape.dim[axis].dim_value = size


MUTATIONS: dict[str, Callable[[onnx.ModelProto], object]] = {
    "an attribute": lambda p: set_attribute(node(p, "c1"), pads=[2, 2, 2, 2]),
    "an epsilon": lambda p: set_attribute(node(p, "n1"), epsilon=1e-5),
    "an operator": lambda p: setattr(node(p, "r1"), "op_type", "Elu"),
    "a domain": lambda p: custom(p, "r1"),
    "a weight's shape": lambda p: resized(p, V=(8, 8, 5, 5)),
    "the width": lambda p: resized(p, L=(6, 8), Z=(6,)),
    "no bias": lambda p: node(p, "c1").input.pop(),
    "a removed node": lambda p: bypass(p, "r1"),
    "an added node": lambda p: insert(p, "last", "Abs"),
    "swapped operands": lambda p: swap(node(p, "sub")),
    "another wiring": lambda p: node(p, "sub").input.__setitem__(0, "b"),
    "a kept number": lambda p: resized(p, half=0.25),
    "a bound": lambda p: resized(p, high=1),
    "scales of a Resize": lambda p: resized(p, scales=[1, 1, 4, 4]),
    "the shape of a kept table": lambda p: resized(p, P=(1, 8)),
    "a fixed batch": lambda p: declared(p.graph.input[0], 0, 1),
    "an input's size": lambda p: declared(p.graph.input[0], 2, 16),
    "an output's size": lambda p: declared(p.graph.output[0], 1, 5),
    "a role": lambda p: node(p, "k").metadata_props.add(key="epsinas.role.1", value="weight"),
    "another output": lambda p: p.graph.output.append(typed("i", None)),
    "another input": lambda p: p.graph.input.append(typed("z", ["N"])),
    "a folded BatchNormalization": lambda p: bypass(p, "n1"),
}  # fmt: skip


def test_the_model_of_the_mutations_is_a_fair_one() -> None:
    onnx.checker.check_model(BLOCKS, full_check=True)
    assert fingerprint(copied(BLOCKS)) == expected("blocks")


@pytest.mark.parametrize("what", sorted(MUTATIONS))
def test_what_is_architecture_changes_it(what: str) -> None:
    changed = copied(BLOCKS)
    MUTATIONS[what](changed)
    assert fingerprint(changed) != expected("blocks")


def test_mutations_are_told_from_each_other() -> None:
    made = []
    for mutate in MUTATIONS.values():
        changed = copied(BLOCKS)
        mutate(changed)
        made.append(fingerprint(changed))
    assert len(set(made)) == len(made)


def test_element_types_change_it() -> None:
    graph = "(float[N,16] x) => (float[N,16] y) { y = MatMul(x, W) }"
    half = build(graph.replace("float", "float16"), W=np.ones((16, 16), np.float16))
    assert fingerprint(half) != fingerprint(build(graph, W=(16, 16)))


def test_one_branch_twice_is_not_two_branches() -> None:
    two = "(float[N,16] x) => (float[N,16] y) { a = MatMul(x, W)  b = MatMul(x, V)  y = Add(a, b) }"
    tied = "(float[N,16] x) => (float[N,16] y) { a = MatMul(x, W)  b = MatMul(x, W)  y = Add(a, b) }"
    once = "(float[N,16] x) => (float[N,16] y) { a = MatMul(x, W)  y = Add(a, a) }"
    found = {fingerprint(build(two, W=(16, 16), V=(16, 16)))}
    found |= {fingerprint(build(graph, W=(16, 16))) for graph in (tied, once)}
    assert len(found) == 3


def test_an_untied_embedding_is_another_network() -> None:
    untied = copied(TIED)
    untied.graph.initializer.append(numpy_helper.from_array(np.ones((40, 16), np.float32), "F"))
    node(untied, "T").input[0] = "F"
    assert fingerprint(untied) != expected("tied")


def test_bodies_count_with_what_they_take_from_outside() -> None:
    captured, operator, weight = (copied(BODIES) for _ in range(3))
    node(captured, "a").input[1] = "o"
    node(operator, "a").op_type = "Mul"
    node(weight, "b").input[1] = "V"
    found = {fingerprint(proto) for proto in (captured, operator, weight, BODIES)}
    assert len(found) == 4


def test_a_loop_is_not_what_it_runs_outside_of_it() -> None:
    body = "body = b (int64 i, bool c, float[N,16] s) => (bool d, float[N,16] r) { d = Identity(c) %s  r = Add(s, t) }"
    graph = "(float[N,16] x) => (float[N,16] y) { %s y = Loop(n, , x) <" + body + "> }"
    inside, outside = graph % ("", "t = Tanh(x)"), graph % ("t = Tanh(x)", "")
    found = [fingerprint(build(text, n=np.array(3))) for text in (inside, outside)]
    found.append(fingerprint(build(outside, n=np.array(4))))
    assert len(set(found)) == 3


def test_dimensions_of_one_name_are_one() -> None:
    graph = "(float[%s,16] x, float[%s,16] z) => (float[A,16] y) { y = Add(x, z) }"
    same, other = (fingerprint(build(graph % names)) for names in (("A", "A"), ("B", "B")))
    apart = fingerprint(build(graph % ("A", "B")))
    assert same == other != apart


def test_a_quantised_network_is_another_one() -> None:
    plain = "(float[N,16] x) => (float[N,16] y) { h = MatMul(x, W)  y = Relu(h) }"
    quantised = (
        "(float[N,16] x) => (float[N,16] y) { q = QuantizeLinear(x, s, z)  a = DequantizeLinear(q, s, z)"
        "  h = MatMul(a, W)  y = Relu(h) }"
    )

    def calibrated(scale: float, zero: int) -> str:
        return fingerprint(build(quantised, W=(16, 16), s=np.array(scale, np.float32), z=np.array(zero, np.int8)))

    assert calibrated(0.5, 3) == calibrated(0.25, 4) != fingerprint(build(plain, W=(16, 16)))


def test_quantised_weights_may_be_trained_again() -> None:
    graph = "(float[N,16] x) => (float[N,16] y) { w = DequantizeLinear(W, s, z)  y = MatMul(x, w) }"
    rng = np.random.default_rng(1)
    found = set()
    for scale, zero in ((0.5, 0), (0.1, 2)):
        weight = rng.integers(-9, 9, (16, 16)).astype(np.int8)
        proto = build(graph, W=weight, s=np.array(scale, np.float32), z=np.array(zero, np.int8))
        found.add(fingerprint(proto))
    assert len(found) == 1


def test_a_bias_of_one_entry_is_no_kept_number() -> None:
    graph = "(float[N,16] x) => (float[N,1] y) { h = MatMul(x, W)  y = Add(h, B) }"
    found = {fingerprint(build(graph, W=(16, 1), B=np.array([value], np.float32))) for value in (0.0, 0.7)}
    assert len(found) == 1


def test_an_unreadable_model_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        fingerprint(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="not an ONNX file"):
        fingerprint(b"\xff\xff\xff")


def test_the_canonical_graph_names_the_nodes_and_leaves_the_model_as_it_was() -> None:
    loaded = load_model(build(PERCEPTRON, W=(3, 4), V=(4, 2), B=(2,)))
    before = ir.to_proto(loaded.model).SerializeToString(deterministic=True)
    graph = canonical_graph(loaded)
    assert ir.to_proto(loaded.model).SerializeToString(deterministic=True) == before
    assert [(line.node, line.operator) for line in graph.lines] == [
        ("first", "MatMul"), ("act", "Tanh"), ("last", "Gemm"),
    ]  # fmt: skip
    assert graph.lines[0].text == "0 MatMul(in0, weight:FLOAT[3,4]#0) -> () 0 "
    assert graph.fingerprint == fingerprint(perceptron())


@pytest.mark.filterwarnings("ignore")
def test_real_exports_agree_after_training_and_not_at_another_width() -> None:
    torch = pytest.importorskip("torch")
    from same_network import SHAPES, torch_networks

    def exported(module: Any, shape: tuple[int, ...], seed: int) -> str:
        torch.manual_seed(seed)
        state = {
            key: torch.rand_like(value) if value.is_floating_point() else value
            for key, value in module.state_dict().items()
        }
        module.load_state_dict(state)
        file = io.BytesIO()
        torch.onnx.export(module.eval(), (torch.zeros(1, *shape),), file, dynamo=False)
        return fingerprint(file.getvalue())

    for name, factory in torch_networks().items():
        first, again = (exported(factory(), SHAPES[name], seed) for seed in (0, 1))
        assert first == again, name
    wide = torch.nn.Sequential(torch.nn.Linear(20, 65), torch.nn.Tanh(), torch.nn.Linear(65, 5))
    narrow = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.Tanh(), torch.nn.Linear(64, 5))
    assert exported(wide, (20,), 0) != exported(narrow, (20,), 0)
