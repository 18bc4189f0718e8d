"""Graphs side by side: every node is in one row, in order, and what moved is told from what came and went."""

from __future__ import annotations

import random
from collections.abc import Sequence

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epsinas_onnx import diff
from epsinas_onnx.compare.rows import AlignedNode, Fate, _longest_rise
from epsinas_onnx.graph.fingerprint import canonical_graph
from epsinas_onnx.graph.load import load_model
from tests.builders import build, perceptron

UNARY = ("Relu", "Tanh", "Sigmoid", "Abs", "Neg", "Exp", "Softplus", "Erf")


def chain(operators: Sequence[str]) -> onnx.ModelProto:
    nodes = [f"[{op.lower()}{i}] v{i + 1} = {op}(v{i})" for i, op in enumerate(operators)]
    return build(f"(float[N,3] x) => (float[N,3] y) {{ v0 = Identity(x) {' '.join(nodes)} y = Neg(v{len(nodes)}) }}")


def compared(one: onnx.ModelProto, two: onnx.ModelProto) -> tuple[AlignedNode, ...]:
    return diff(one, two, with_score=False).nodes


def names(proto: onnx.ModelProto) -> list[str]:
    return [line.node for line in canonical_graph(load_model(proto)).lines]


@settings(max_examples=15, deadline=None)
@given(*[st.lists(st.sampled_from(UNARY), min_size=1, max_size=9)] * 2)
def test_every_node_is_in_one_row_in_the_order_of_its_graph(one: list[str], two: list[str]) -> None:
    before, after = chain(one), chain(two)
    rows = compared(before, after)
    assert [row.before.name for row in rows if row.before is not None] == names(before)
    assert [row.after.name for row in rows if row.after is not None] == names(after)
    for index, row in enumerate(rows):
        assert row.before is not None or row.after is not None
        assert (row.fate in (Fate.REMOVED, Fate.ADDED, Fate.MOVED)) == (row.before is None or row.after is None)
        if row.partner is not None:
            assert rows[row.partner].partner == index
        for side, read in enumerate(row.reads):
            assert all(other < index and (rows[other].before, rows[other].after)[side] is not None for other in read)


def test_a_chain_reads_the_node_in_front() -> None:
    rows = compared(perceptron(), perceptron("Relu"))
    assert [row.fate for row in rows] == [Fate.SAME, Fate.REMOVED, Fate.ADDED, Fate.SAME]
    assert [row.reads for row in rows] == [((), ()), ((0,), ()), ((), (0,)), ((1,), (2,))]


def test_the_same_graph_has_no_changes_and_keeps_both_names() -> None:
    other = perceptron()
    for node in other.graph.node:
        node.name += "_again"
    rows = compared(perceptron(), other)
    assert {row.fate for row in rows} == {Fate.SAME}
    assert [row.after.name for row in rows if row.after] == ["first_again", "act_again", "last_again"]


def test_other_tensors_attributes_and_roles_are_changes() -> None:
    (changed, *_) = compared(perceptron(width=4), perceptron(width=5))
    assert (changed.fate, changed.changes) == (Fate.CHANGED, ("input 1: weight [3,4] -> weight [3,5]",))
    other = perceptron()
    other.graph.node[0].metadata_props.add(key="epsinas.role.1", value="constant")
    assert compared(perceptron(), other)[0].fate is Fate.ROLES


def test_what_stands_elsewhere_moved() -> None:
    text = (
        "(float[N,3] x) => (float[N,4] y) {{ [a] a = MatMul(x, A) [b] b = MatMul(x, B) [ra] c = Relu(a) "
        "[rb] d = Tanh(b) [sum] y = Add({}) }}"
    )
    rows = compared(build(text.format("c, d"), A=(3, 4), B=(3, 4)), build(text.format("d, c"), A=(3, 4), B=(3, 4)))
    moved = [row for row in rows if row.fate is Fate.MOVED]
    assert moved
    assert {row.before.name for row in moved if row.before} == {row.after.name for row in moved if row.after}


@pytest.mark.parametrize("seed", range(20))
def test_the_longest_rise_is_as_long_as_any(seed: int) -> None:
    values = random.Random(seed).sample(range(12), 7)
    longest = [1] * 7
    for i in range(7):
        longest[i] += max((longest[j] for j in range(i) if values[j] < values[i]), default=0)
    found = [values[i] for i in _longest_rise(values)]
    assert found == sorted(found)
    assert len(found) == max(longest)
