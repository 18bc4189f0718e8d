"""Models that contradict the ONNX specification: each ends in a sentence that names the place, whatever reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, TensorProto, helper, numpy_helper

import epsinas_onnx
from epsinas_onnx import ModelError, ShapeError, UnsupportedError, UsageError
from epsinas_onnx.graph.fingerprint import fingerprint
from epsinas_onnx.graph.load import load_model
from epsinas_onnx.graph.validate import check_soundness

from ..builders import build, command, perceptron, save

LOOP = """(float[N,3] x, int64 n, bool c) => (float[N,2] y) {
    s = Loop(n, c, x) <body = b (int64 i, bool go, float[N,3] a) => (bool on, float[N,3] z) {
        on = Identity(go)  z = Tanh(a)
    }>
    y = MatMul(s, W)
}"""
FUNCTION = '<domain: "local", opset_import: ["" : 21, "local" : 1]> twice (a) => (b) { c = Tanh(a)  b = Tanh(c) }'


def looped() -> onnx.ModelProto:
    return build(LOOP, W=(3, 2))


def called() -> onnx.ModelProto:
    return build(
        "(float[N,3] x) => (float[N,2] y) { h = local.twice(x)  y = MatMul(h, W) }", functions=FUNCTION, W=(3, 2)
    )


def reshaped() -> onnx.ModelProto:
    return build(
        "(float[N,3] x) => (float[N,2] y) { h = Reshape(x, s)  [m] y = MatMul(h, W) }", W=(3, 2), s=np.asarray([-1, 3])
    )


Maker: TypeAlias = Callable[[], onnx.ModelProto]
Change: TypeAlias = Callable[[onnx.ModelProto], object]


def _change(model: Maker, change: Change) -> Maker:
    def make() -> onnx.ModelProto:
        proto = model()
        change(proto)
        return proto

    return make


def _mlp(change: Change) -> Maker:
    return _change(perceptron, change)


def _attribute(proto: onnx.ModelProto, node: int = 0, which: int = 0) -> AttributeProto:
    return proto.graph.node[node].attribute[which]


def _recursive(proto: onnx.ModelProto) -> None:
    proto.functions[0].node[0].CopyFrom(helper.make_node("twice", ["a"], ["c"], domain="local"))


def _doubling(proto: onnx.ModelProto) -> None:
    for level in range(40):
        inner = "twice" if level == 0 else f"f{level - 1}"
        made = proto.functions.add(name=f"f{level}", domain="local", input=["a"], output=["c"])
        made.opset_import.extend(proto.opset_import)
        for source, target in (("a", "b"), ("b", "c")):
            made.node.append(helper.make_node(inner, [source], [target], domain="local"))
    proto.graph.node[0].op_type = "f39"


def _itself(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].input[0] = "y"


def _of_its_body(proto: onnx.ModelProto) -> None:
    body = _attribute(proto).g
    body.node.append(helper.make_node("Identity", ["s"], ["unused"]))


def _older_in_its_function(proto: onnx.ModelProto) -> None:
    """Sort by a node that the function may have, whose operator set is older, and the graph may not."""
    node = helper.make_node("TopK", ["c"], ["sorted", "places"], "sorted", domain="ai.onnx", k=1, axis=1)
    function, graph = proto.functions[0], proto.graph
    function.opset_import[0].version = 9
    function.node.append(node)
    graph.node.append(node)
    graph.node[-1].input[0] = "h"


SIZES = next(i for i, tensor in enumerate(reshaped().graph.initializer) if tensor.name == "s")

BROKEN: dict[str, tuple[Maker, tuple[str, ...]]] = {
    "too many outputs": (_mlp(lambda m: m.graph.node[2].output.append("more")), ("'last' (Gemm)", "2 outputs")),
    "too few inputs": (_mlp(lambda m: m.graph.node[2].ClearField("input")), ("'last' (Gemm)", "0 inputs")),
    "an input left out": (_mlp(lambda m: m.graph.node[0].input.__setitem__(1, "")), ("'first' (MatMul)", "input 1")),
    "too many inputs": (_mlp(lambda m: m.graph.node[1].input.append("x")), ("'act' (Tanh)", "2 inputs")),
    "no outputs": (_mlp(lambda m: m.graph.node[1].ClearField("output")), ("'act' (Tanh)", "0 outputs")),
    "no operator": (_mlp(lambda m: m.graph.node[1].ClearField("op_type")), ("'act'", "no operator")),
    "no attribute that is needed": (
        _mlp(lambda m: m.graph.node[1].CopyFrom(helper.make_node("Cast", ["h"], ["r"], "act"))),
        ("'act' (Cast)", "'to'"),
    ),
    "an attribute of another type": (
        _mlp(lambda m: m.graph.node[2].attribute.append(helper.make_attribute("alpha", "much"))),
        ("'last' (Gemm)", "'alpha'", "STRING", "FLOAT"),
    ),
    "an attribute of no type": (
        _mlp(lambda m: m.graph.node[2].attribute.add(name="alpha", f=1)), ("'last' (Gemm)", "'alpha'")
    ),
    "an attribute that is there twice": (
        _mlp(lambda m: m.graph.node[2].attribute.extend([helper.make_attribute("alpha", 1.0)] * 2)),
        ("'alpha'", "twice"),
    ),
    "an attribute that refers to none": (
        _mlp(lambda m: m.graph.node[2].attribute.add(name="alpha", type="FLOAT", ref_attr_name="a")), ("'alpha'", "'a'")
    ),
    "an attribute that holds two kinds": (
        _change(looped, lambda m: _attribute(m).t.CopyFrom(numpy_helper.from_array(np.ones(3)))), ("'body'", "GRAPH")
    ),
    "an element type out of range": (
        _mlp(lambda m: m.graph.node[1].CopyFrom(helper.make_node("Cast", ["h"], ["r"], "act", to=99))),
        ("'act' (Cast)", "'to' = 99"),
    ),
    "a tensor of an unknown type": (_mlp(lambda m: setattr(m.graph.initializer[0], "data_type", 99)), ("'W'", "99")),
    "a tensor without a type": (_mlp(lambda m: m.graph.initializer[0].ClearField("data_type")), ("'W'", "type 0")),
    "a value of an unknown type": (
        _mlp(lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 99)), ("'x'", "99")
    ),
    "a negative size": (_mlp(lambda m: m.graph.initializer[0].dims.__setitem__(0, -3)), ("'W'", "[-3, 4]")),
    "a size beyond all": (_mlp(lambda m: m.graph.initializer[0].dims.__setitem__(0, 2**62)), ("'W'", str(2**62))),
    "bytes that do not fill the shape": (
        _mlp(lambda m: setattr(m.graph.initializer[0], "raw_data", b"12345")), ("'W'", "48 bytes", "holds 5")
    ),
    "entries of another type": (
        _change(reshaped, lambda m: setattr(m.graph.initializer[SIZES], "data_type", TensorProto.UINT8)), ("'s'",)
    ),
    "sizes without entries": (
        _change(reshaped, lambda m: m.graph.initializer[SIZES].ClearField("raw_data")), ("'s'", "holds nothing")
    ),
    "sizes that are no list": (
        _change(reshaped, lambda m: m.graph.initializer[SIZES].dims.append(1)), ("(Reshape)", "input 1", "no list")
    ),
    "a body that is missing": (
        _change(looped, lambda m: m.graph.node[0].ClearField("attribute")), ("(Loop)", "'body'"),
    ),
    "a body that is empty": (_change(looped, lambda m: _attribute(m).g.Clear()), ("(Loop)", "'body'", "0 inputs")),
    "a body that holds nothing": (
        _change(looped, lambda m: _attribute(m).ClearField("g")), ("(Loop)", "'body'", "nothing"),
    ),
    "a body that gives too little": (_change(looped, lambda m: _attribute(m).g.output.pop()), ("(Loop)", "1 outputs")),
    "a node of a body": (
        _change(looped, lambda m: _attribute(m).g.node[1].ClearField("input")), ("(Tanh)", "0 inputs")
    ),
    "a Constant of nothing": (
        _mlp(lambda m: m.graph.node[1].CopyFrom(helper.make_node("Constant", [], ["r"], "act"))), ("'act'", "0 values")
    ),
    "a Constant of more than its value": (
        _mlp(lambda m: m.graph.node[1].CopyFrom(helper.make_node("Constant", [], ["r"], "act", value_int=1, axis=1))),
        ("'act'", "'axis'", "nothing but its value"),
    ),
    "an operand that another operator set does not need": (
        _change(called, _older_in_its_function), ("'sorted' (TopK)", "1 inputs")
    ),
    "a value that is made twice": (_mlp(lambda m: m.graph.node.append(m.graph.node[1])), ("'r'", "twice")),
    "a tensor that is stored twice": (
        _mlp(lambda m: m.graph.initializer.append(m.graph.initializer[0])), ("'W'", "twice"),
    ),
    "an input that is there twice": (_mlp(lambda m: m.graph.input.append(m.graph.input[0])), ("'x'", "twice")),
    "an input without a name": (_mlp(lambda m: m.graph.input.add()), ("no name",)),
    "a circle": (_mlp(_itself), ("circle",)),
    "a circle through a body": (_change(looped, _of_its_body), ("circle",)),
    "a function that calls itself": (_change(called, _recursive), ("twice", "in a circle")),
    "a function that is there twice": (
        _change(called, lambda m: m.functions.append(m.functions[0])), ("local::twice", "twice"),
    ),
    "a node of a function": (
        _change(called, lambda m: m.functions[0].node[1].ClearField("input")), ("(Tanh)", "0 inputs"),
    ),
    "functions that double": (_change(called, _doubling), ("nodes, and 500,000 is the most",)),
    "an operator set below all": (_mlp(lambda m: setattr(m.opset_import[0], "version", -1)), ("operator set -1",)),
    "an operator set of nothing": (_mlp(lambda m: setattr(m.opset_import[0], "version", 0)), ("operator set 0",)),
    "an operator set beyond all": (_mlp(lambda m: setattr(m.opset_import[0], "version", 2**62)), ("operator set",)),
    "a configuration without a name": (
        _mlp(lambda m: m.graph.node[1].device_configurations.add()), ("'act'", "configuration")
    ),
}  # fmt: skip


def assert_sentence(text: str, *words: str) -> None:
    assert "\n" not in text
    assert "unexpected" not in text
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize("name", BROKEN)
def test_what_contradicts_the_specification_is_one_sentence(tmp_path: Path, name: str) -> None:
    make, words = BROKEN[name]
    path = save(make(), tmp_path / "model.onnx")
    calls: tuple[Callable[[], object], ...] = (
        lambda: epsinas_onnx.score(path, batch=4), lambda: epsinas_onnx.inspect(path),
        lambda: epsinas_onnx.strip(path), lambda: epsinas_onnx.fill(path), lambda: epsinas_onnx.rewrite(path, 0.5),
        lambda: epsinas_onnx.score(make(), batch=4),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(ModelError) as caught:
            call()
        assert_sentence(str(caught.value), *words)


def _places(message: object) -> list[tuple[object, str, int | None]]:
    found: list[tuple[object, str, int | None]] = []
    for field, value in message.ListFields():  # type: ignore[attr-defined]
        values = list(enumerate(value)) if hasattr(value, "append") or hasattr(value, "add") else [(None, value)]
        for index, one in values:
            if isinstance(one, str):
                found.append((message, field.name, index))
            elif hasattr(one, "ListFields"):
                found += _places(one)
    return found


@settings(deadline=None)
@given(st.data())
def test_a_name_that_is_no_text_is_refused_wherever_it_is(data: st.DataObject) -> None:
    proto = data.draw(st.sampled_from([looped, called, reshaped]))()
    proto.metadata_props.add(key="key", value="value")
    message, field, index = data.draw(st.sampled_from(_places(proto)))
    if index is None:
        setattr(message, field, "ZZZZ")
    else:
        getattr(message, field)[index] = "ZZZZ"
    broken = proto.SerializeToString().replace(b"ZZZZ", b"\x9f\x9f\x9f\x9f")
    with pytest.raises(ModelError) as caught:
        load_model(broken)
    assert_sentence(str(caught.value), "UTF-8")


def test_operators_that_onnx_does_not_know_pass() -> None:
    graph = "(float[N,3] x) => (float[N,3] y) { h = com.microsoft.Gelu(x)  y = my.domain.Warp <a = 1> () }"
    proto = build(graph)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    check_soundness(proto, "model")


def test_any_number_but_0_transposes() -> None:
    usual, odd = perceptron(), perceptron()
    for proto, number in ((usual, 1), (odd, 255)):
        proto.graph.node[2].attribute.append(helper.make_attribute("transB", number))
        next(tensor for tensor in proto.graph.initializer if tensor.name == "V").dims[:] = [2, 4]
    assert epsinas_onnx.score(odd, batch=4).score == epsinas_onnx.score(usual, batch=4).score


def test_a_size_of_minus_1_is_one_that_is_not_known() -> None:
    proto = perceptron()
    proto.graph.value_info.append(helper.make_tensor_value_info("B", TensorProto.FLOAT, [-1]))
    with pytest.raises(ShapeError, match=r"'last' \(Gemm\), input 2: the bias has no known shape"):
        epsinas_onnx.score(proto, batch=4)


def test_an_input_of_half_bytes_is_refused() -> None:
    proto = perceptron()
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.INT4
    with pytest.raises(UnsupportedError, match="'x' is INT4"):
        epsinas_onnx.score(proto, batch=4)


def test_a_weight_of_any_size_may_be_left_out() -> None:
    proto = perceptron()
    for tensor in proto.graph.initializer:
        tensor.ClearField("raw_data")
    check_soundness(proto, "model")


NODES = ("a = Neg(x)", "b = MatMul(a, W)", "c = Tanh(b)", "d = Neg(c)", "e = MatMul(d, V)", "y = Identity(e)")


@settings(deadline=None)
@given(st.permutations(NODES), st.booleans())
def test_nodes_in_any_order_are_brought_into_order(nodes: list[str], is_body: bool) -> None:
    found = []
    for listed in (NODES, nodes):
        graph = f"{{ {' '.join(listed)} }}"
        if is_body:
            other = "else_branch = f () => (float[N,2] q) { q = MatMul(x, Q) }"
            branches = f"<then_branch = t () => (float[N,2] y) {graph}, {other}>"
            graph = f"{{ z = If(k) {branches} }}"
        proto = build(
            f"(float[N,3] x, bool k) => (float[N,2] {'z' if is_body else 'y'}) {graph}", W=(3, 4), V=(4, 2), Q=(3, 2)
        )
        found.append((fingerprint(proto), epsinas_onnx.inspect(proto).nodes))
    assert found[0] == found[1]


@pytest.mark.parametrize("key", ["epsinas.role:*", "epsinas.role:first"])
def test_a_bogus_role_costs_a_batch_one_row(tmp_path: Path, key: str) -> None:
    bad, good = perceptron(), perceptron()
    bad.metadata_props.add(key=key, value="bogus")
    paths = [save(bad, tmp_path / "bad.onnx"), save(good, tmp_path / "good.onnx")]
    done = command("score", *paths, "--batch", "4", "--format", "json")
    rows = json.loads(done.out)
    assert done.code == 3
    assert [row["status"] for row in rows] == ["error", "ok"]
    assert rows[0]["reason"].startswith(f"{paths[0]}: metadata {key!r} gives a role")


@pytest.mark.parametrize("written", ["", "bogus", "{", "nan", "-1", "inf", "1e400", "\x9f"])
@pytest.mark.parametrize("key", ["epsinas.batch_norm", "epsinas.batch_norm.epsilon", "epsinas.role.9", "epsinas.x", ""])
def test_metadata_of_a_stranger_breaks_nothing(key: str, written: str) -> None:
    graph = "(float[N,3,8,8] x) => (float[N,2,4,4] y) { h = Conv(x, W, B)  r = Relu(h)  y = Conv(r, V) }"
    proto = build(graph, W=(4, 3, 3, 3), B=(4,), V=(2, 4, 3, 3))
    proto.graph.node[0].metadata_props.add(key="epsinas.batch_norm", value="folded")
    proto.graph.node[0].metadata_props.add(key=key, value=written)
    for call in (epsinas_onnx.inspect, epsinas_onnx.strip, lambda model: epsinas_onnx.score(model, batch=4)):
        try:
            call(proto)
        except ModelError as error:
            assert_sentence(str(error))


def test_a_negative_seed_is_a_wrong_call() -> None:
    for call in (
        lambda: epsinas_onnx.score(perceptron(), seed=-1), lambda: epsinas_onnx.fill(perceptron(), seed=-1),
        lambda: epsinas_onnx.rewrite(perceptron(), 0.5, seed=-1),
    ):  # fmt: skip
        with pytest.raises(UsageError, match="from 0 on"):
            call()
