"""Models of a few kilobytes that ask for terabytes, and what a command that is given one takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from onnx import helper

from .builders import build

HEAD = "(float[N,3] x) => (float[N,2] y)"
"""The large value r is reduced to a number that the signal is multiplied by."""
TAIL = "p = ReduceMax <keepdims = 0> (r)  c = Cast <to = 1> (p)  k = Mul(x, c)  h = MatMul(k, W)  y = Tanh(h)"
DOUBLING = "int64[M] s) => (bool d, int64[K] t) { d = Identity(c)  t = Concat <axis = 0> (s, s) }"


def of(nodes: str, opset: int = 21, **tensors: Any) -> Callable[[], onnx.ModelProto]:
    """Return a maker of a model that makes r by `nodes`; `tensors` are its initializers, integers unless arrays."""
    arrays = {name: np.asarray(given) for name, given in tensors.items()}
    return lambda: build(f"{HEAD} {{ {nodes}  {TAIL} }}", opset, W=(3, 2), **arrays)


def over_and_over(step: str, times: int, first: str = "a") -> str:
    """Return nodes of which each does `step` to the one before, V; the last makes r."""
    nodes = [f"v{index + 1} = {step.replace('V', f'v{index}')}" for index in range(times)]
    return f"v0 = Identity({first})  {'  '.join(nodes)}  r = Identity(v{times})"


def in_a_sequence(times: int) -> str:
    nodes = ["e = SequenceEmpty()", "s0 = SequenceInsert(e, a)"]
    for index in range(times):
        nodes += [
            f"t{index} = ConcatFromSequence <axis = 0> (s{index})", f"q{index} = SequenceInsert(s{index}, t{index})",
            f"s{index + 1} = SequenceInsert(q{index}, t{index})",
        ]  # fmt: skip
    return "  ".join([*nodes, f"r = ConcatFromSequence <axis = 0> (s{times})"])


def without_data(kind: int, *dims: int) -> Callable[[], onnx.ModelProto]:
    """Return a maker of a model whose initializer is declared as large and holds nothing."""

    def make() -> onnx.ModelProto:
        proto = of("r = Identity(a)")()
        proto.graph.initializer.add(name="a", data_type=kind, dims=dims)
        return proto

    return make


def constant_without_data() -> onnx.ModelProto:
    proto = of("r = Identity(a)")()
    tensor = onnx.TensorProto(data_type=onnx.TensorProto.FLOAT, dims=[2**20, 2**20])
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["a"], value=tensor))
    return proto


def sparse(size: int) -> Callable[[], onnx.ModelProto]:
    def make() -> onnx.ModelProto:
        proto = of("r = Identity(a)")()
        stored = proto.graph.sparse_initializer.add(dims=[size])
        stored.values.CopyFrom(onnx.numpy_helper.from_array(np.ones(1, np.float32), "a"))
        stored.indices.CopyFrom(onnx.numpy_helper.from_array(np.zeros(1, np.int64), "places"))
        return proto

    return make


def functions(depth: int, calls: int = 2) -> onnx.ModelProto:
    """Return a model whose functions call the next one so many times each."""
    texts = []
    for index in range(depth):
        names = ["x", *(f"t{call}" for call in range(calls - 1)), "y"]
        steps = [f"{after} = local.f{index + 1} ({before})" for before, after in pairwise(names)]
        texts.append(
            f'<domain: "local", opset_import: ["" : 21, "local" : 1]> f{index} (x) => (y) {{ {"  ".join(steps)} }}'
        )
    texts.append(f'<domain: "local", opset_import: ["" : 21]> f{depth} (x) => (y) {{ y = Tanh(x) }}')
    return build(f"{HEAD} {{ h = MatMul(x, W)  y = local.f0(h) }}", functions="\n".join(texts), W=(3, 2))


def nested_functions(depth: int) -> onnx.ModelProto:
    """Return a model of which each function holds an If, whose branch calls the next one."""
    ours, local = helper.make_opsetid("", 21), helper.make_opsetid("local", 1)
    made = []
    for index in range(depth):
        inner = helper.make_node(f"f{index + 1}", ["x", "c"], ["t"], domain="local")
        then = helper.make_graph([inner], "then", [], [helper.make_tensor_value_info("t", 1, None)])
        plain = helper.make_node("Tanh", ["x"], ["e"])
        other = helper.make_graph([plain], "else", [], [helper.make_tensor_value_info("e", 1, None)])
        node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
        made.append(helper.make_function("local", f"f{index}", ["x", "c"], ["y"], [node], [ours, local]))
    last = helper.make_node("Tanh", ["x"], ["y"])
    made.append(helper.make_function("local", f"f{depth}", ["x", "c"], ["y"], [last], [ours]))
    graph = "m = ReduceMax <keepdims = 0> (x)  c = Cast <to = 9> (m)  h = MatMul(x, W)  y = Tanh(h)"
    proto = build(f"{HEAD} {{ {graph} }}", W=(3, 2))
    proto.opset_import.append(local)
    proto.graph.node[-1].CopyFrom(helper.make_node("f0", ["h", "c"], ["y"], domain="local"))
    proto.functions.extend(made)
    return proto


@dataclass(frozen=True)
class Hostile:
    """A model, what `score` says of it ("" where it is scored in no memory), and whether no command takes it."""

    make: Callable[[], onnx.ModelProto]
    words: str
    unreadable: bool = False


TOO_LARGE = "out of constants alone, and 1 GiB is the most"
NO_MEMORY = "of memory"
NO_DATA = "does not fill that shape"

HOSTILE: dict[str, Hostile] = {
    "Range": Hostile(of("r = Range(a, b, d)", a=0, b=2**40, d=1), TOO_LARGE),
    "a smaller Range": Hostile(of("r = Range(a, b, d)", a=0, b=2**30, d=1), TOO_LARGE),
    "a computed Range": Hostile(of("e = Mul(b, b)  r = Range(a, e, d)", a=0, b=2**20, d=1), TOO_LARGE),
    "a Concat that doubles": Hostile(of(over_and_over("Concat <axis = 0> (V, V)", 40), a=np.arange(2)), NO_MEMORY),
    "a Concat of floats": Hostile(
        of(over_and_over("Concat <axis = 0> (V, V)", 40), a=np.arange(2, dtype=np.float32)), NO_MEMORY
    ),
    "a Concat that doubles less": Hostile(of(over_and_over("Concat <axis = 0> (V, V)", 28), a=np.arange(2)), TOO_LARGE),
    "a Concat of sizes": Hostile(
        of("n = Shape(x)  " + over_and_over("Concat <axis = 0> (V, V)", 40, "n")), NO_MEMORY
    ),
    "a Concat of the input": Hostile(of(over_and_over("Concat <axis = 1> (V, V)", 40, "x")), NO_MEMORY),
    "Tile": Hostile(of("r = Tile(a, s)", a=np.arange(3), s=[2**40]), NO_MEMORY),
    "a Tile of Tiles": Hostile(of(over_and_over("Tile(V, s)", 20), a=np.arange(2), s=[4]), NO_MEMORY),
    "a computed Tile": Hostile(of("e = Mul(s, s)  r = Tile(a, e)", a=np.arange(3), s=[2**20]), TOO_LARGE),
    "a Tile of the input": Hostile(of("e = Mul(s, s)  r = Tile(x, e)", s=[2**20, 1]), NO_MEMORY),
    "Expand": Hostile(of("e = Mul(s, s)  r = Expand(a, e)", a=[3], s=[2**20]), ""),
    "ConstantOfShape": Hostile(of("e = Mul(s, s)  r = ConstantOfShape(e)", s=[2**20]), ""),
    "Pad": Hostile(of("r = Pad(a, s)", a=np.arange(3), s=[0, 2**40]), TOO_LARGE),
    "a computed Pad": Hostile(of("e = Mul(s, s)  r = Pad(a, e)", a=np.arange(3), s=[0, 2**20]), TOO_LARGE),
    "OneHot": Hostile(of("r = OneHot(a, d, v)", a=np.arange(3), d=[2**40], v=[0, 1]), TOO_LARGE),
    "a computed OneHot": Hostile(
        of("e = Mul(d, d)  r = OneHot(a, e, v)", a=np.arange(3), d=[2**20], v=[0, 1]), TOO_LARGE
    ),
    "EyeLike": Hostile(of("z = ConstantOfShape(s)  r = EyeLike(z)", s=[2**20, 2**20]), TOO_LARGE),
    "NonZero": Hostile(of("z = ConstantOfShape <value = float[1] {1}> (s)  r = NonZero(z)", s=[2**30]), TOO_LARGE),
    "HannWindow": Hostile(of("r = HannWindow(s)", s=2**40), TOO_LARGE),
    "DFT": Hostile(of("r = DFT(a, s)", a=np.ones((1, 4, 1), np.float32), s=2**30), TOO_LARGE),
    "ConvTranspose": Hostile(
        of("r = ConvTranspose <strides = [1073741824]> (a, b)", a=np.ones((1, 1, 4), np.float32),
           b=np.ones((1, 1, 2), np.float32)), TOO_LARGE,
    ),
    "the pads of a Conv": Hostile(
        of("r = Conv <pads = [1073741824, 1073741824], strides = [1073741824]> (a, b)",
           a=np.ones((1, 1, 4), np.float32), b=np.ones((1, 1, 2), np.float32)), "",
    ),
    "AffineGrid": Hostile(
        of("r = AffineGrid(a, s)", a=np.ones((1, 2, 3), np.float32), s=[1, 1, 2**20, 2**20]), TOO_LARGE
    ),
    "Gather": Hostile(
        of("g = Gather(a, i)  q = Gather <axis = 1> (g, i)  r = Gather <axis = 2> (q, i)",
           a=np.zeros((1, 1, 1), np.int64), i=np.zeros(4096, np.int64)), "",
    ),
    "broadcasting": Hostile(
        of("p0 = Unsqueeze(a, o)  p1 = Unsqueeze(a, l)  q = Add(p0, p1)  z = Unsqueeze(q, o)  u = Unsqueeze(a, m)"
           "  r = Add(z, u)", a=np.arange(4000), o=[0], l=[1], m=[1, 2]), TOO_LARGE,
    ),
    "random numbers": Hostile(of("r = RandomUniform <shape = [32768, 32768]> ()"), TOO_LARGE),
    "what a Loop stacks": Hostile(
        of("f, r = Loop(t, , a) <body = b (int64 i, bool c, int64 s) => (bool d, int64 u, int64 o)"
           " { d = Identity(c)  u = Identity(s)  o = Identity(i) }>", a=0, t=2**40), TOO_LARGE,
    ),
    "a Loop that doubles": Hostile(
        of(f"r = Loop(t, , a) <body = b (int64 i, bool c, {DOUBLING}>", a=np.arange(2), t=40), TOO_LARGE
    ),
    "a Loop that appends": Hostile(
        of(f"r = Loop(t, , a) <body = b (int64 i, bool c, {DOUBLING.replace('(s, s)', '(s, a)')}>", a=np.arange(2),
           t=2**40), TOO_LARGE,
    ),
    "a Loop that doubles the input": Hostile(
        of("r = Loop(t, , x) <body = b (int64 i, bool c, float[M,3] s) => (bool d, float[K,3] u)"
           " { d = Identity(c)  u = Concat <axis = 0> (s, s) }>", t=40), NO_MEMORY,
    ),
    "a sequence": Hostile(of(in_a_sequence(26), a=np.arange(2, dtype=np.float32)), TOO_LARGE),
    "an initializer of nothing": Hostile(without_data(onnx.TensorProto.FLOAT, 2**29, 2**30), NO_DATA),
    "an initializer beyond counting": Hostile(
        without_data(onnx.TensorProto.FLOAT, 2**40, 2**40), "which no tensor has", unreadable=True
    ),
    "integers of nothing": Hostile(without_data(onnx.TensorProto.INT64, 2**33), NO_DATA),
    "a Constant of nothing": Hostile(constant_without_data, NO_DATA),
    "a sparse tensor": Hostile(sparse(2**40), "4 TiB when it is dense"),
    "a smaller sparse tensor": Hostile(sparse(2**31), "8 GiB when it is dense"),
    "functions that double": Hostile(lambda: functions(20), "1,048,577 nodes", unreadable=True),
    "functions that double and double": Hostile(
        lambda: functions(60), "nodes, and 500,000 is the most", unreadable=True
    ),
    "a chain of functions without end": Hostile(
        lambda: build(
            f"{HEAD} {{ h = MatMul(x, W)  y = local.f(h) }}", W=(3, 2),
            functions='<domain: "local", opset_import: ["" : 21, "local" : 1]> f (x) => (y) { y = local.f(x) }',
        ), "call each other in a circle (f -> f)", unreadable=True,
    ),
    "bodies that functions nest": Hostile(lambda: nested_functions(3000), "bodies 3,000 deep", unreadable=True),
}  # fmt: skip
