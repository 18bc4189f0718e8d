"""Einsums of any equation equal the operator on expanded operands, whatever the partitions are."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsinas_onnx.lump.partition import Partition
from tests.lump.harness import Operand, check, examples, operands, weight

_CONSTANTS = (0.3, -1.5)
_EQUATIONS = (
    "bij,bjk->bik", "bqhd,bkhd->bhqk", "bhqk,bkhd->bqhd", "bsd,dhe->bshe", "bshe,hed->bsd", "bhwc,hkc->bhwk",
    "ij->ji", "ij->i", "ij->", "ij", "i,j->ij", "i,i->", "ij,ij->ij", "ij,jk", "ba,cb", "ij,jk,kl->il",
    "bnc,cd,bd->bn", "ij,jk,ik->ik", "ab,b,bc->", "...ij,...jk->...ik", "...i,ij->...j", "b...d,de->b...e",
    "...ij->...ji", "... i j , j -> ... i", "ij...,jk...", "abc,dbe,ad->ce",
)  # fmt: skip


@st.composite
def einsums(draw: st.DrawFn, equation: str) -> tuple[onnx.NodeProto, dict[str, Operand], int]:
    """Draw operands of an equation: sizes by label, an ellipsis of up to two axes, broadcast axes among them."""
    constants = draw(st.integers(1, 2))
    sizes = {label: draw(st.integers(1, 4)) for label in equation if label.isalpha()}
    free = [draw(st.integers(1, 3)) for _ in range(draw(st.integers(0, 2)))]
    given: dict[str, Operand] = {}
    for index, term in enumerate(equation.replace(" ", "").partition("->")[0].split(",")):
        front, dots, behind = term.partition("...")
        middle = [draw(st.sampled_from([size, size, 1])) if "," in equation else size for size in free if dots]
        shape = [*(sizes[label] for label in front), *middle, *(sizes[label] for label in behind)]
        if index and draw(st.booleans()):
            given[f"x{index}"] = weight(shape, _CONSTANTS[:constants])
        else:
            given[f"x{index}"] = draw(operands(shape, constants=constants, factors=True))
    return onnx.helper.make_node("Einsum", list(given), ["y"], equation=equation), given, constants


@pytest.mark.parametrize("equation", _EQUATIONS)
@examples(30)
@given(data=st.data())
def test_einsum(equation: str, data: st.DataObject) -> None:
    node, given, constants = data.draw(einsums(equation))
    check(node, given, constants=constants)


@examples(20)
@given(x=operands([3, 3], factors=True))
def test_a_diagonal_runs_as_it_is(x: Operand) -> None:
    lowered = check(onnx.helper.make_node("Einsum", ["x"], ["y"], equation="ii->i"), {"x": x}, ruled=False)
    assert lowered.without_rule


def test_a_projection_of_equal_features_computes_one() -> None:
    parts = (Partition.discrete(2), Partition.discrete(5), Partition.one(256))
    x = Operand(np.random.default_rng(0).random((2, 5, 1), np.float32), parts, weighted=True)
    node = onnx.helper.make_node("Einsum", ["x", "w"], ["y"], equation="bsd,dhe->bhse")
    lowered = check(node, {"x": x, "w": weight((256, 8, 32), [0.5])})
    assert lowered.values[0].counts == (2, 1, 5, 1)
    assert all(node.op_type in ("Mul", "Reshape") for node in lowered.graph.nodes)
