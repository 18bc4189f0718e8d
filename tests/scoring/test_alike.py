"""Models of a batch that compute the same are run once, whatever they are called; what each gives is its own."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from epsinas_exporters import spaces
from epsinas_onnx import Score, Status, score, score_many
from epsinas_onnx.scoring import alike
from tests.builders import build, perceptron

OPTIONS: dict[str, Any] = {"batch": 8, "inputs": "grey"}
SUM = "(float[N,3] x) => (float[N,2] y) { a = MatMul(x, W) b = Tanh(x) c = MatMul(b, V) y = Add(a, c) }"
TURNED = "(float[N,3] p) => (float[N,2] q) { b = Tanh(p) c = MatMul(b, V) a = MatMul(p, W) q = Add(c, a) }"
LOOP = """
    (float[N,3] x) => (float[N,3] y) {
        n = Constant <value = int64 {2}> () more = Constant <value = bool {1}> ()
        y = Loop (n, more, x) <body = g (int64 i, bool go, float[N,3] h) => (bool on, float[N,3] k) {
            on = Identity(go) m = MatMul(h, W) k = Tanh(m) }>
    }
"""


@dataclasses.dataclass
class Named:
    """A model with a name of its own."""

    name: str
    proto: onnx.ModelProto

    def build(self) -> ir.Model:
        return ir.from_proto(self.proto)


def own(found: Score) -> dict[str, Any]:
    """Return a record without what it took."""
    return {key: value for key, value in found.to_dict().items() if key != "seconds"}


def is_shared(found: Score) -> bool:
    """Whether nothing was run for a score."""
    return found.status is Status.OK and found.seconds["run"] == 0


def of_batch(*protos: onnx.ModelProto, **options: Any) -> list[Score]:
    return list(score_many([Named(f"model{i}", proto) for i, proto in enumerate(protos)], **{**OPTIONS, **options}))


def summed(graph: str = SUM, **changes: Any) -> onnx.ModelProto:
    return build(graph, **{"W": (3, 2), "V": (3, 2), **changes})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (perceptron(), perceptron()),
        (summed(), summed(TURNED)),
        (summed(), summed(SUM.replace("Tanh(x)", "Tanh(x) dead = Exp(x)"))),
        (summed(LOOP, W=(3, 3)), summed(LOOP.replace("m = M", "z = M").replace("(m)", "(z)"), W=(3, 3))),
    ],
    ids=["copy", "other names, order and terms", "a dead node", "a loop"],
)
def test_one_of_two_that_compute_the_same_is_run(one: onnx.ModelProto, other: onnx.ModelProto) -> None:
    first, second = of_batch(one, other)
    assert first.status is Status.OK
    alone = score(Named("model1", other), **OPTIONS)
    assert [is_shared(found) for found in (first, second, alone)] == [False, True, False]
    assert own(second) == own(alone)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (perceptron(), perceptron("Sigmoid")),
        (summed(), summed(SUM.replace("Add", "Sub"))),
        (summed(SUM.replace("Add", "Sub")), summed(TURNED.replace("Add", "Sub"))),
        (summed(LOOP, W=(3, 3)), summed(LOOP.replace("int64 {2}", "int64 {3}"), W=(3, 3))),
        (summed(LOOP, W=(3, 3)), summed(LOOP.replace("Tanh", "Sigmoid"), W=(3, 3))),
    ],
    ids=["an operator", "another one", "a difference turned round", "how often", "in a body"],
)  # fmt: skip
def test_what_computes_something_else_is_run_itself(one: onnx.ModelProto, other: onnx.ModelProto) -> None:
    for found in of_batch(one, other):
        assert not is_shared(found)


@pytest.mark.parametrize("change", [{"seed": 1}, {"inputs": "grey"}, {"batch": 9}, {"weights": (1e-3, 1.0)}])
def test_what_is_fed_and_the_constants_are_part_of_what_is_computed(change: dict[str, Any]) -> None:
    batch: alike.Alike[Any] = alike.Alike()
    found = []
    for options in ({**OPTIONS, "inputs": "normal"}, {**OPTIONS, "inputs": "normal", **change}):
        with batch.scoring():
            found.append(score(Named("one", perceptron()), **options))
    assert len(batch) == 2
    assert found[0].score != found[1].score


def test_a_reason_is_a_model_s_own() -> None:
    lost = "(float[N,3] x) => (float[N,2] y) { [first] h = MatMul(x, W) [end] z = Mul(h, zero) y = Add(z, B) }"
    one = build(lost, W=(3, 2), B=(2,), zero=np.zeros(1, np.float32))
    other = build(lost.replace("end", "last"), W=(3, 2), B=(2,), zero=np.zeros(1, np.float32))
    found = of_batch(one, other)
    assert [one.status for one in found] == [Status.CONSTANT] * 2
    assert ["end" in str(found[0].reason), "last" in str(found[1].reason)] == [True, True]


def _shuffled(arch: str) -> onnx.ModelProto:
    """Return a network with other names, its nodes in another order that is one."""
    proto = ir.to_proto(spaces.get("nasbench201").build(arch))
    names: dict[str, str] = {}

    def renamed(name: str) -> str:
        return names.setdefault(name, f"v{len(names)}") if name else ""

    for node in proto.graph.node:
        node.name = ""
        node.input[:] = map(renamed, node.input)
        node.output[:] = map(renamed, node.output)
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer, *proto.graph.value_info):
        value.name = renamed(value.name)
    rng, made = random.Random(3), {value.name for value in (*proto.graph.input, *proto.graph.initializer)}
    waiting, ordered = list(proto.graph.node), []
    while waiting:
        node = rng.choice([node for node in waiting if made.issuperset(filter(None, node.input))])
        waiting.remove(node)
        ordered.append(node)
        made.update(node.output)
    del proto.graph.node[:]
    proto.graph.node.extend(ordered)
    return proto


def test_networks_of_a_space_are_told_apart_by_what_they_compute() -> None:
    """As many are run as there are families, but for those that an operator without effect tells apart."""
    space = spaces.get("nasbench201")
    archs = space.sample(24, seed=5)
    found = of_batch(*(_shuffled(arch) for arch in archs), *(ir.to_proto(space.build(arch)) for arch in archs))
    for index, arch in enumerate(archs):
        one, other = found[index], found[index + len(archs)]
        if one.status is Status.OK:
            assert is_shared(other), arch
        assert (one.score, one.order, one.float32_status) == (other.score, other.order, other.float32_status)
        alone = score(Named(other.model, ir.to_proto(space.build(arch))), **OPTIONS)
        assert own(other) == own(alone)
    run = {space.family(arch) for one, arch in zip(found, archs, strict=False) if not is_shared(one)}
    assert run == {space.family(arch) for arch in archs}


def test_workers_look_for_them_too() -> None:
    found = of_batch(*(perceptron() for _ in range(6)), jobs=2)
    assert sum(map(is_shared, found)) >= 4  # each of two processes runs one at most
    assert len({one.score for one in found}) == 1


def test_what_was_asked_for_longest_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alike, "_MOST", 2)
    batch: alike.Alike[int] = alike.Alike()
    with batch.scoring():
        batch.keep(b"1", 1)
        batch.keep(b"2", 2)
        assert batch.find(b"1") == 1
        batch.keep(b"3", 3)
    assert batch.find(b"2") is None
    assert batch.find(b"1") == 1
    assert len(batch) == 2


def test_a_deeper_model_is_judged_by_its_own_depth() -> None:
    """Its rounding gathers over more nodes than the lowered graph has."""
    steps = "".join(f"u{i} = Unsqueeze(q{i}, one)  q{i + 1} = Squeeze(u{i}, one)  " for i in range(40))
    graph = "(float[N,3] x) => (float[N,2] y) <int64[1] one = {1}> { s = Tanh(x)  q0 = MatMul(s, W)  %s y = Tanh(%s) }"
    flat, deep = (summed(graph % one) for one in (("", "q0"), (steps, "q40")))
    first, second, third = of_batch(flat, deep, deep)
    assert not is_shared(second)
    assert is_shared(third)
    assert first.score == second.score == third.score
