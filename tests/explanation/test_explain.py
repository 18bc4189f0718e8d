"""What `explain` says of values: numbers of any size, ONNX Runtime's numbers, shares that add up, annotated copies."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsinas_onnx import explain
from epsinas_onnx.explanation.annotate import annotate
from epsinas_onnx.explanation.modules import module_tree, rows
from epsinas_onnx.explanation.result import Number
from epsinas_onnx.explanation.shares import Step, shares
from epsinas_onnx.report.layers import columns
from tests.builders import command, perceptron, save
from tests.explanation.test_prefixes import MODELS, images, ran

SKIPPING = MODELS / "nb201-p-s-n-n-n-s.onnx"


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(10**6), 10**6))
def test_a_number_is_mantissa_and_exponent_of_any_size(mantissa: float, exponent: int) -> None:
    found = Number.of(mantissa, exponent)
    if mantissa == 0:
        assert found == (0.0, 0)
        return
    assert 1 <= abs(found.mantissa) < 10
    assert math.copysign(1, found.mantissa) == math.copysign(1, mantissa)
    log = math.log10(abs(mantissa)) + exponent * math.log10(2)
    assert math.log10(abs(found.mantissa)) + found.exponent == pytest.approx(log, abs=1e-9 * max(1, abs(log)))


@pytest.mark.parametrize("arithmetic", ["exact", "float32"])
def test_ranges_and_variation_are_those_that_onnx_runtime_gives(arithmetic: str) -> None:
    found = explain(SKIPPING, batch=16, arithmetic=arithmetic)  # type: ignore[arg-type]
    values = {value.name: value for value in found.values if any(value.observed)}
    assert len(values) > 50
    names = [name for name in values if values[name].node]
    for index, weight in enumerate(found.weights):
        feeds = (
            images() if found.samples == 16 else {"input": images()["input"][np.linspace(0, 15, 4).round().astype(int)]}
        )
        for name, array in zip(names, ran(SKIPPING.name, weight, names, feeds), strict=True):
            seen = values[name].observed[index]
            assert seen is not None
            size = float(np.abs(array).max())
            if size < 1e-30:
                continue
            assert seen.magnitude == pytest.approx(math.log10(size), abs=1e-3)
            for number, entry in ((seen.low, array.min()), (seen.high, array.max())):
                assert number.mantissa * 10.0**number.exponent == pytest.approx(float(entry), abs=1e-3 * size)
            assert values[name].shape == array.shape


def test_values_beyond_float32_have_their_exponent() -> None:
    found = explain(MODELS / "nb201-c1-n-c1-n-n-c3.onnx", batch=16)
    (output,) = [value for value in found.values if value.name == "output"]
    seen = output.observed[0]
    assert seen is not None
    assert seen.magnitude is not None
    # 96 weights of 1e-7 stand between input and output, and sums multiply by the numbers of their terms.
    assert -96 * 7 <= seen.magnitude < -400
    assert seen.high.exponent == math.floor(seen.magnitude)


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Step]:
    """Draw a graph of which each value is made of some before it; the first one is an input."""
    numbers = st.one_of(st.none(), st.floats(0, 10))
    steps = {"v0": Step("Input", (), 0.0, (0.0, 0.0))}
    for index in range(1, draw(st.integers(2, 12))):
        operands = draw(st.lists(st.sampled_from(sorted(steps)), min_size=1, max_size=3))
        operator = draw(st.sampled_from(("Add", "Mul", "Relu", "Concat")))
        variation = draw(st.tuples(*[st.one_of(st.none(), st.floats(-2000, 50))] * 2))
        steps[f"v{index}"] = Step(operator, operands, draw(numbers), variation)
    last = f"v{len(steps) - 1}"
    steps[last] = Step("Gemm", steps[last].operands, draw(st.floats(0, 10)), (0.0, 0.0))
    return steps


@given(graphs())
def test_shares_add_up_to_the_dispersion_of_the_output(steps: dict[str, Step]) -> None:
    last = list(steps)[-1]
    parts = shares(steps, [last])
    assert sum(parts.values()) == pytest.approx(steps[last].dispersion, abs=1e-9)


def test_a_share_is_what_a_chain_gains_in_a_step() -> None:
    steps = {
        "x": Step("Input", (), 0.0, (0.0, 0.0)),
        "a": Step("Conv", ("x",), 0.5, (0.0, 0.0)),
        "b": Step("Relu", ("a",), None, (0.0, 0.0)),
        "c": Step("Gemm", ("b",), 0.2, (0.0, 0.0)),
        "beside": Step("Relu", ("a",), 9.0, (0.0, 0.0)),
    }
    assert shares(steps, ["c"]) == {"x": 0.0, "a": 0.5, "b": 0.0, "c": pytest.approx(-0.3), "beside": 0.0}


def test_a_sum_weighs_what_varies_more() -> None:
    steps = {
        "x": Step("Input", (), 0.0, (0.0, 0.0)),
        "large": Step("Conv", ("x",), 1.0, (0.0, 0.0)),
        "small": Step("Conv", ("x",), 1.0, (-20.0, -20.0)),
        "y": Step("Add", ("large", "small"), 1.0, (0.0, 0.0)),
    }
    assert shares(steps, ["y"]) == {
        "x": 0.0,
        "large": pytest.approx(1.0),
        "small": pytest.approx(0.0),
        "y": pytest.approx(0.0),
    }


def test_the_shares_of_a_network_add_up_to_its_score() -> None:
    found = explain(SKIPPING, batch=16)
    assert found.dispersion == pytest.approx(found.score, rel=1e-9)
    assert sum(value.share or 0.0 for value in found.values) == pytest.approx(1.0)
    root = module_tree(found)
    assert sum(one.share or 0.0 for one in root.inner.values()) == pytest.approx(1.0)


def test_a_tree_of_thousands_without_modules_has_rows_to_look_at() -> None:
    steps = "  ".join(f"[n{index}] h{index + 1} = Relu(h{index})" for index in range(3000))
    graph = f"(float[N,3] x) => (float[N,3] y) {{ [first] h0 = MatMul(x, W)  {steps}  [last] y = Tanh(h3000) }}"
    from tests.builders import build

    found = explain(build(graph, W=(3, 3)), batch=4, inputs="normal")
    assert len(found.values) == 3003
    root = module_tree(found)
    assert len(rows(root)) <= 40
    everything = rows(root, 10**6)
    assert {branch.module.name for branch in everything} >= {"first", "n0", "n1500", "n2999", "last"}
    at = columns(found.values)
    assert len({(value.depth, column) for value, column in zip(found.values, at, strict=True)}) == len(at)


def test_boxes_of_a_row_stand_apart() -> None:
    found = explain(MODELS / "nb201-c3-c3-c3-s-c3-c3.onnx", batch=4)
    by_depth: dict[int, list[float]] = {}
    for value, column in zip(found.values, columns(found.values), strict=True):
        by_depth.setdefault(value.depth, []).append(column)
    assert max(map(len, by_depth.values())) > 1
    assert all(b - a > 0.99 for row in by_depth.values() for a, b in zip(sorted(row), sorted(row)[1:], strict=False))
    assert min(min(row) for row in by_depth.values()) == 0


def test_json_has_every_value(tmp_path: Path) -> None:
    path = save(perceptron(), tmp_path / "p.onnx")
    done = command("explain", path, "--batch", "16", "-f", "json")
    assert (done.code, done.err) == (0, "")
    record = json.loads(done.out)
    assert [value["name"] for value in record["values"]] == ["x", "h", "r", "y"]
    assert record == explain(path, batch=16).to_dict()
    assert isinstance(record["values"][1]["observed"][0]["low"][1], int)


def test_a_copy_says_what_was_found_and_scores_the_same(tmp_path: Path) -> None:
    name = "nb201-c3-n-n-c1-c3-n.onnx"
    out, page = tmp_path / "out.onnx", tmp_path / "page.html"
    done = command("explain", str(MODELS / name), "--batch", "16", "--annotate", str(out), "--html", str(page))
    assert (done.code, done.err) == (0, "")
    assert "float32 ends in stage0.cell3.edge0-1.conv (Conv)" in done.out
    proto = onnx.load(out)
    onnx.checker.check_model(proto)
    said = {node.name: {entry.key: entry.value for entry in node.metadata_props} for node in proto.graph.node}
    lost = [node for node, entries in said.items() if "epsinas.lost" in entries]
    assert lost == ["stage0.cell3.edge0-1.conv"]
    assert said[lost[0]]["epsinas.lost"].startswith("float32: underflow: with weights 1e-07")
    assert said["stem.conv"]["epsinas.magnitude"] == "1e-5.6 (weights 1e-07), 1e+1.4 (weights 1)"
    assert command("score", str(out), "-f", "json", "--batch", "16").code == 0
    again = annotate(out, explain(out, batch=16))
    assert [len(node.metadata_props) for node in again.graph.node] == [
        len(node.metadata_props) for node in proto.graph.node
    ]


def test_errors_are_one_sentence_and_an_exit_code(tmp_path: Path) -> None:
    missing = command("explain", str(tmp_path / "missing.onnx"))
    assert missing.code == 3
    assert missing.err.count("\n") == 1
    stereo = (
        "explain",
        str(MODELS / "stereo.onnx"),
        "--batch",
        "16",
        "--dim",
        "right_height=28",
        "--dim",
        "right_width=28",
    )
    failed = command(*stereo, "--dim", "height=32", "--dim", "width=32")
    assert failed.code == 3
    assert "the signal ends in merge (Add): error" in failed.out
    assert command("explain", str(MODELS / "mlp.onnx"), "--weights", "1").code == 2
    with_itself = command("explain", str(MODELS / "mlp.onnx"), "--html", str(MODELS / "mlp.onnx"))
    assert with_itself.code == 2
