"""Values in bodies of If, Loop and Scan: what a plain run of the same steps, one after the other, has in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epsinas_exporters.spaces import nasbenchnlp
from epsinas_onnx import Explanation, Status, explain, score
from epsinas_onnx.explanation.annotate import annotate
from epsinas_onnx.explanation.modules import module_tree
from epsinas_onnx.explanation.result import ExplainedValue, Number
from epsinas_onnx.report.explanation_page import to_html
from tests.browser import Browser, browser  # noqa: F401
from tests.builders import build

Array = npt.NDArray[Any]
WEIGHTS = (1e-3, 1.0)
STEPS, BATCH, WIDTH = 4, 4, 3
X = np.random.default_rng(3).standard_normal((BATCH, STEPS, WIDTH)).astype(np.float32)
HEAD = (
    "(float[N,4,3] x) => (float[N,3] y) { [turn] q = Transpose<perm=[1,0,2]>(x)  [first] h0 = Gather<axis=0>(q, zero)"
)
CELL = "[mm] m = MatMul(s, W)  [add] a = Add(h, m)  [act] n = Tanh(a)"
SCAN = f"""{HEAD}
  [scan] last, all = Scan<num_scan_inputs=1, body = cell (float[N,3] h, float[N,3] s) => (float[N,3] n, float[N,3] o) {{
    {CELL}  [out] o = Identity(n) }}>(h0, q)
  [end] y = Identity(last) }}"""
LOOP = f"""{HEAD}
  [loop] last, all = Loop<body = cell (int64 i, bool go, float[N,3] h) => (bool on, float[N,3] n, float[N,3] o) {{
    [on] on = Identity(go)  [pick] s = Gather<axis=0>(q, i)  {CELL}  [out] o = Identity(n) }}>(four, yes, h0)
  [end] y = Identity(last) }}"""
BRANCH = f"""{HEAD}  [sum] t = ReduceMax<keepdims=0>(x)  [ask] c = Greater(t, low)
  [if] b = If(c)<then_branch = taken () => (float[N,3] p) {{ [mm] m = MatMul(h0, W)  [act] p = Tanh(m) }},
                 else_branch = other () => (float[N,3] p) {{ [mm] m = MatMul(h0, W)  [no] k = Sigmoid(m)
                                                            [act] p = Relu(k) }}>
  [end] y = Identity(b) }}"""
NESTED = f"""{HEAD}  [sum] t = ReduceMax<keepdims=0>(x)  [ask] c = Greater(t, low)
  [loop] last = Loop<body = outer (int64 i, bool go, float[N,3] g) => (bool on, float[N,3] r) {{
    [on] on = Identity(go)
    [scan] e = Scan<num_scan_inputs=1, body = cell (float[N,3] h, float[N,3] s) => (float[N,3] n) {{ {CELL} }}>(g, q)
    [if] r = If(c)<then_branch = taken () => (float[N,3] w) {{ [half] w = Mul(e, two) }},
                   else_branch = other () => (float[N,3] v) {{ [neg] v = Neg(e) }}> }}>(four, yes, h0)
  [end] y = Identity(last) }}"""


def model(text: str) -> onnx.ModelProto:
    return build(
        text, opset=17, W=(WIDTH, WIDTH), zero=np.asarray(0), four=np.asarray(STEPS), yes=np.asarray(True),
        low=np.asarray(-1e9, np.float32), two=np.asarray(2.0, np.float32),
    )  # fmt: skip


def explained(proto: onnx.ModelProto, **options: Any) -> Explanation:
    return explain(proto, inputs={"x": X}, batch=BATCH, weights=WEIGHTS, **options)


def summed(rows: Array, weight: float) -> Array:
    """Return a product with a matrix that has one number everywhere."""
    return np.repeat(weight * rows.sum(-1, keepdims=True), WIDTH, -1)


def cell(x: Array, h: Array, weight: float, seen: dict[str, list[Array]]) -> Array:
    for step in range(STEPS):
        s = x[:, step]
        m = summed(s, weight)
        a = h + m
        n = np.tanh(a)
        for name, array in (("h", h), ("s", s), ("m", m), ("a", a), ("n", n), ("o", n)):
            seen.setdefault(name, []).append(array)
        h = n
    return h


def recurrence(x: Array, weight: float) -> dict[str, list[Array]]:
    seen: dict[str, list[Array]] = {}
    cell(x, x[:, 0], weight, seen)
    return seen


def branch(x: Array, weight: float) -> dict[str, list[Array]]:
    m = summed(x[:, 0], weight)
    return {"if/then_branch/m": [m], "if/then_branch/p": [np.tanh(m)]}


def nested(x: Array, weight: float) -> dict[str, list[Array]]:
    seen: dict[str, list[Array]] = {}
    g = x[:, 0]
    for _ in range(STEPS):
        seen.setdefault("g", []).append(g)
        e = cell(x, g, weight, seen)
        g = 2 * e
        seen.setdefault("e", []).append(e)
        seen.setdefault("w", []).append(g)
        seen.setdefault("r", []).append(g)
    del seen["o"]
    return seen


def same(found: Explanation, expected: Callable[[Array, float], dict[str, list[Array]]]) -> None:
    values = {value.name: value for value in found.values}
    for index, weight in enumerate(found.weights):
        for name, turns in expected(X.astype(np.float64), weight).items():
            seen = values[name].observed[index]
            assert seen is not None, name
            together = np.stack(turns)
            assert plain(seen.low) == pytest.approx(together.min(), rel=1e-5), name
            assert plain(seen.high) == pytest.approx(together.max(), rel=1e-5), name
            assert seen.magnitude == pytest.approx(math.log10(np.abs(together).max()), abs=1e-5), name
            moved = np.abs(together - together[:, :1]).max()
            assert seen.variation == pytest.approx(math.log10(moved), abs=1e-4), name
            assert seen.finite
            assert values[name].shape == turns[0].shape


def plain(number: Number) -> float:
    return number.mantissa * 10.0**number.exponent


CASES = [(SCAN, recurrence), (LOOP, recurrence), (BRANCH, branch), (NESTED, nested)]


@pytest.mark.parametrize("arithmetic", ["exact", "float32"])
@pytest.mark.parametrize(("text", "expected"), CASES, ids=["scan", "loop", "if", "nested"])
def test_values_are_those_of_the_steps_run_one_after_the_other(
    text: str, expected: Callable[[Array, float], dict[str, list[Array]]], arithmetic: str
) -> None:
    found = explained(model(text), arithmetic=arithmetic)
    assert found.arithmetic == arithmetic
    same(found, expected)
    assert found.not_taken == {BRANCH: 3, NESTED: 1}.get(text, 0)


@pytest.mark.parametrize("text", [text for text, _ in CASES], ids=["scan", "loop", "if", "nested"])
def test_shares_add_up_with_what_is_in_bodies(text: str) -> None:
    found = explained(model(text))
    assert found.status is Status.OK
    assert sum(value.share or 0.0 for value in found.values) == pytest.approx(1.0)
    inside = [value for value in found.values if value.inside]
    assert inside
    assert any(value.share for value in inside)
    root = module_tree(found)
    assert sum(one.share or 0.0 for one in root.inner.values()) == pytest.approx(1.0)


def test_depth_operands_and_holders_go_on_from_the_node_outside() -> None:
    values = {value.name: value for value in explained(model(NESTED)).values}
    assert values["m"].inside == ("loop", "scan")
    assert values["w"].inside == ("loop", "if")
    assert (values["h"].node, values["h"].operator, values["h"].operands) == ("scan", "Scan input", ("g",))
    assert (values["g"].node, values["g"].operator, values["g"].operands) == ("loop", "Loop input", ("h0",))
    assert values["s"].operands == ("q",)
    assert values["a"].operands == ("h", "m")
    assert values["e"].operands == ("n",)
    assert values["last"].operands == ("r",)
    assert [values[name].depth for name in ("q", "h0", "g", "h", "a", "n", "e")] == [1, 2, 3, 4, 5, 6, 7]
    order = list(values)
    for value in values.values():
        assert all(order.index(name) < order.index(value.name) for name in value.operands)
        assert value.depth == 1 + max((values[name].depth for name in value.operands), default=-1)


OPERATIONS: dict[str, tuple[str, Callable[[Array, Array, float], Array]]] = {
    "Tanh": ("Tanh(%s)", lambda h, s, w: np.tanh(h)),
    "Sigmoid": ("Sigmoid(%s)", lambda h, s, w: 1 / (1 + np.exp(-h))),
    "Relu": ("Relu(%s)", lambda h, s, w: np.maximum(h, 0)),
    "MatMul": ("MatMul(%s, W)", lambda h, s, w: summed(h, w)),
    "Add": ("Add(%s, s)", lambda h, s, w: h + s),
    "Mul": ("Mul(%s, s)", lambda h, s, w: h * s),
    "Sub": ("Sub(s, %s)", lambda h, s, w: s - h),
}


@given(st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=1, max_size=6))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_cell_is_what_it_is_step_by_step(names: list[str]) -> None:
    steps, at = [], "h"
    for index, name in enumerate(names):
        steps.append(f"[n{index}] v{index} = {OPERATIONS[name][0] % at}")
        at = f"v{index}"
    body = f"(float[N,3] h, float[N,3] s) => (float[N,3] {at}) {{ {' '.join(steps)} }}"
    scan = f"[scan] last = Scan<num_scan_inputs=1, body = cell {body}>(h0, q)"
    found = explained(model(f"{HEAD} {scan} [end] y = Identity(last) }}"), arithmetic="exact")
    values = {value.name: value for value in found.values}
    for constant, weight in enumerate(WEIGHTS):
        h = X[:, 0].astype(np.float64)
        seen: dict[str, list[Array]] = {}
        for step in range(STEPS):
            for index, name in enumerate(names):
                h = OPERATIONS[name][1](h, X[:, step].astype(np.float64), weight)
                seen.setdefault(f"v{index}", []).append(h)
        for name, turns in seen.items():
            one = values[name].observed[constant]
            if one is None:  # proven to be the same for all samples
                assert all(np.ptp(turn, axis=0).max() < 1e-12 for turn in turns)
                continue
            together = np.stack(turns)
            assert plain(one.low) == pytest.approx(together.min(), rel=1e-6, abs=1e-9)
            assert plain(one.high) == pytest.approx(together.max(), rel=1e-6, abs=1e-9)


SHRINKING = """(float[N,4,3] x) => (float[N,3] y) { [turn] q = Transpose<perm=[1,0,2]>(x)
  [first] h0 = Gather<axis=0>(q, zero)
  [scan] last = Scan<num_scan_inputs=1, body = cell (float[N,3] h, float[N,3] s) => (float[N,3] c) {
    [one] a = MatMul(h, W)  [two] b = MatMul(a, W)  [three] c = MatMul(b, W) }>(h0, q)
  [end] y = MatMul(last, W) }"""


def ending(found: Explanation) -> ExplainedValue:
    """Return the value that the named node makes."""
    assert found.lost is not None
    (made,) = [value for value in found.values if value.node == found.lost.node]
    assert found.lost.operands == made.operands
    assert found.lost.inside == made.inside
    return made


@pytest.mark.parametrize(("weight", "status"), [(1e-7, Status.UNDERFLOW), (1e7, Status.OVERFLOW)])
def test_float32_ends_in_the_node_of_the_body_in_which_it_does_step_by_step(weight: float, status: Status) -> None:
    proto = model(SHRINKING)
    options: dict[str, Any] = {"inputs": {"x": X}, "batch": BATCH, "weights": (1.0, weight), "arithmetic": "float32"}
    found, scored = explain(proto, **options), score(proto, **options)
    assert found.lost is not None
    assert (found.status, found.lost.reason) == (scored.status, scored.reason)
    assert found.status is status
    assert scored.reason is not None
    assert "'scan'" in scored.reason
    h, first = X[:, 0], ""
    with np.errstate(over="ignore", invalid="ignore"):
        for name in ["one", "two", "three"] * STEPS:
            before, h = h, np.matmul(h, np.full((WIDTH, WIDTH), weight, np.float32))
            live = np.isfinite(h).all() if status is Status.OVERFLOW else np.ptp(h, axis=0).any()
            if not live:
                first = name
                assert np.isfinite(before).all()
                assert np.ptp(before, axis=0).any()
                break
    assert found.lost.node == first
    assert ending(found).inside == ("scan",)


def test_constant_ends_in_the_node_of_the_body() -> None:
    text = SHRINKING.replace("[two] b = MatMul(a, W)", "[two] b = Floor(a)")
    options: dict[str, Any] = {"inputs": {"x": np.abs(X) / 100}, "batch": BATCH, "weights": (1e-3, 1e-2)}
    found, scored = explain(model(text), **options), score(model(text), **options)
    assert found.lost is not None
    assert (found.status, found.lost.reason) == (scored.status, scored.reason)
    made = ending(found)
    assert (made.name, made.operands) == ("b", ("a",))
    h = np.abs(X[:, 0]).astype(np.float64) / 100
    a = summed(h, 1e-3)
    assert np.ptp(a, axis=0).any()
    assert not np.ptp(np.floor(a), axis=0).any()


def test_a_copy_says_what_was_found_inside_of_bodies() -> None:
    for text in (NESTED, BRANCH):
        proto = model(text)
        found = explained(proto)
        copy = annotate(proto, found)
        onnx.checker.check_model(copy)
        said: dict[tuple[str, ...], list[str]] = {}

        def walk(graph: onnx.GraphProto, inside: tuple[str, ...], said: dict[tuple[str, ...], list[str]]) -> None:
            for node in graph.node:
                said[(*inside, node.name)] = [entry.value for entry in node.metadata_props]
                for attribute in node.attribute:
                    if attribute.type == onnx.AttributeProto.GRAPH:
                        walk(attribute.g, (*inside, attribute.g.name), said)

        walk(copy.graph, (), said)
        if text is NESTED:
            assert said["outer", "cell", "mm"]
            assert said["outer", "taken", "half"]
            assert not said["outer", "other", "neg"]
        else:
            assert said["taken", "mm"]
            assert not said["other", "mm"]


def test_what_cannot_be_handed_out_of_a_body_is_counted() -> None:
    text = f"""{HEAD}
      [loop] last = Loop<body = cell (int64 i, bool go, float[N,3] h) => (bool on, float[N,3] n) {{
        [on] on = Identity(go)  [many] k = Add(i, one)  [list] r = Unsqueeze(k, at)
        [cut] s = Slice(q, at, r, at)  [mean] m = ReduceMean<axes=[0], keepdims=0>(s)
        [mm] e = MatMul(m, W)  [add] n = Add(h, e) }}>(four, yes, h0)
      [end] y = Identity(last) }}"""
    proto = model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(1), "one"))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray([0]), "at"))
    found = explained(proto, arithmetic="float32")
    values = {value.name: value for value in found.values}
    assert values["s"].observed == (None, None)  # it has another shape in every turn
    assert values["e"].observed[0] is not None
    assert found.unobserved >= 1


@pytest.mark.parametrize("arithmetic", ["exact", "float32"])
def test_a_network_of_nas_bench_nlp_is_looked_into(arithmetic: str) -> None:
    nodes = '{"node_0":{"op":"linear","input":["x","h_prev_0"]},"h_new_0":{"op":"activation_tanh","input":["node_0"]}}'
    network = nasbenchnlp.build(nodes, steps=5, width=6, hidden=8, tokens=50)
    found = explain(network, batch=8, weights=(1e-3, 1e-1), arithmetic=arithmetic)  # type: ignore[arg-type]
    assert (found.status, found.unobserved, found.not_taken) == (Status.OK, 0, 0)
    inside = [value for value in found.values if value.inside]
    assert {value.inside for value in inside} == {(f"layer{layer}.scan",) for layer in range(3)}
    assert all(one is not None and one.finite for value in inside for one in value.observed)
    assert sum(value.share or 0.0 for value in found.values) == pytest.approx(1.0)
    values = {value.name: value for value in found.values}
    for index, weight in enumerate(found.weights):
        x, h = values["layer2.x"].observed[index], values["layer2.h_prev_0"].observed[index]
        total = values["layer2.node_0.add1"].observed[index]
        assert x is not None
        assert h is not None
        assert total is not None
        # Eight numbers of the layer below and six of the state, each times the weight, and a bias of the weight.
        assert plain(total.high) <= weight * (8 * plain(x.high) + 6 * plain(h.high) + 1) * (1 + 1e-6)
        assert plain(total.low) >= weight * (8 * plain(x.low) + 6 * plain(h.low) + 1) * (1 - 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 400])
def test_a_page_has_what_is_in_bodies(browser: Browser, tmp_path: Path, width: int) -> None:  # noqa: F811
    page = tmp_path / "page.html"
    page.write_text(to_html(explained(model(NESTED))), encoding="utf-8")
    browser.show(page, width=width)
    assert browser.complaints() == []
    assert browser.run("return document.documentElement.scrollWidth") <= width
    from selenium.webdriver.common.keys import Keys

    browser.driver.find_element("id", "find").send_keys("mm", Keys.ENTER)
    details = browser.run("return document.getElementById('details').textContent")
    assert "mm (MatMul)" in details
    assert "Inside ofloop, in scan" in details
    assert "half" in browser.run("return document.querySelector('table').textContent")
