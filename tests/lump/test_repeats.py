"""What a rule did to one node is done to the next like it: the lowered graph is the one that the rules make."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsinas_exporters.builder import OPSET, GraphBuilder, tensor_input, typed_output
from epsinas_exporters.spaces import get
from epsinas_onnx import score
from epsinas_onnx.graph.load import load_model
from epsinas_onnx.lump import repeats
from epsinas_onnx.lump.graph import Body, Kind, Node
from epsinas_onnx.lump.lower import LumpedModel, lump
from epsinas_onnx.lump.partition import Partition
from epsinas_onnx.lump.step import Target
from epsinas_onnx.lump.unlumpable import Unlumpable
from epsinas_onnx.lump.value import Lumped, Parts, Tensor
from epsinas_onnx.scoring.options import GraphOptions
from epsinas_onnx.scoring.plan import plan
from tests.lump.harness import examples
from tests.lump.networks import random_network
from tests.tiers import ALIKE, tiered

MODELS = sorted((Path(__file__).parents[2] / "models").rglob("*.onnx"))
SPACES = ("nasbench201", "nasbench101", "nasbenchmacro", "nasbenchnlp", "darts")
TARGETS = (Target.evaluated(), Target(2), Target(1, blocked=False, bound=False))
BATCH = 4


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    repeats._recipes.cache_clear()
    yield
    repeats._recipes.cache_clear()


def lowered(source: object, target: Target, grey: bool) -> LumpedModel:
    """Lower a model; grey: for images of which all pixels are one class."""
    loaded = load_model(source)  # type: ignore[arg-type]
    planned = plan(loaded, BATCH, GraphOptions()).with_shapes()
    parts: dict[str, Parts] = {}
    if grey:
        for spec in planned.specs:
            if len(spec.shape) == 4:
                sizes = [Partition.one(size) for size in spec.shape[1:]]
                parts[spec.name] = (Partition.discrete(spec.shape[0]), *sizes)
    return lump(planned.model, planned.decisions, planned.specs, planned.name, target, parts=parts)


def dump(made: LumpedModel) -> dict[str, Any]:
    """Return all that a lowered graph is, in plain values."""
    graph = made.graph
    return {
        "nodes": [written(node) for node in graph.nodes],
        "stored": {
            named(tensor): (array.dtype, array.shape, array.tobytes()) for tensor, array in graph.initializers.items()
        },
        "derived": {
            named(tensor): make(np.full(made.constants, 0.5, np.float32)).tobytes()
            for tensor, make in graph.derived.items()
        },
        "values": {str(value.name): held(lumped) for value, lumped in made.values.items()},
        "observed": [(name, held(mean), held(variance)) for name, mean, variance in made.context.observed],
        "guards": [held(guard) for guard in made.context.guards],
        "cut off": None if made.cut_off is None else made.cut_off.why,
        "without rule": [node.name for node in made.without_rule],
    }


def named(tensor: Tensor | None) -> Any:
    return None if tensor is None else (tensor.name, tensor.shape, tensor.dtype)


def written(node: Node) -> Any:
    attributes = {
        name: [written(inner) for inner in value.nodes] if isinstance(value, Body)
        else value.value if isinstance(value, ir.Attr) and value.type != ir.AttributeType.GRAPH
        else np.asarray(value).tolist()
        for name, value in node.attributes.items()
    }  # fmt: skip
    inputs, outputs = (list(map(named, tensors)) for tensors in (node.inputs, node.outputs))
    return node.domain, node.op_type, inputs, outputs, attributes, node.source


def held(lumped: Lumped) -> Any:
    known = None if lumped.known is None else lumped.known.tolist()
    cause = None if lumped.cause is None else (lumped.cause.node.name, lumped.cause.why, lumped.cause.order)
    return (
        lumped.parts, lumped.dtype, named(lumped.tensor), lumped.factor, lumped.weighted, lumped.varied, lumped.depends,
        cause, lumped.zero, known, lumped.table,
    )  # fmt: skip


def by_rules_alone(source: object, target: Target, grey: bool) -> dict[str, Any] | str:
    def outcome(self: repeats.Repeats, rule: Any, step: Any, operands: Any) -> Any:
        return rule(self._context, step, operands)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repeats.Repeats, "outcome", outcome)
        return made(source, target, grey)


def made(source: object, target: Target, grey: bool) -> dict[str, Any] | str:
    try:
        return dump(lowered(source, target, grey))
    except Unlumpable as error:
        return str(error)


def recipes() -> int:
    """Return how many are known for the first target and the operator set of what this package builds."""
    return len(repeats._recipes(TARGETS[0], (("", OPSET),)))


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("path", tiered(MODELS, exhaustive=ALIKE, name=lambda path: path.stem))
def test_a_file_is_lowered_as_its_rules_have_it(path: Path, grey: bool) -> None:
    for target in TARGETS[:2]:
        expected = by_rules_alone(path, target, grey)
        for _ in range(2):  # the second time from what the first one remembered
            assert made(path, target, grey) == expected


@pytest.mark.parametrize("name", tiered(SPACES, exhaustive={"darts"}))
def test_networks_of_a_space_are_lowered_as_their_rules_have_it(name: str) -> None:
    space, target = get(name), TARGETS[0]
    for arch in space.sample(5, seed=3):
        model = space.build(arch)
        assert made(model, target, True) == by_rules_alone(model, target, True)
    assert recipes() > 10  # or nothing was compared


@examples(20)
@given(seed=st.integers(0, 2**20), other=st.integers(0, 2**20), grey=st.booleans(), target=st.sampled_from(TARGETS))
def test_what_one_network_left_behind_does_not_show_in_another(
    seed: int, other: int, grey: bool, target: Target
) -> None:
    for number in (seed, other, seed):
        model = random_network(number)
        assert made(model, target, grey) == by_rules_alone(model, target, grey)


def test_no_more_is_remembered_than_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "_MOST", 7)
    for seed in range(3):
        model = random_network(seed)
        assert made(model, TARGETS[0], True) == by_rules_alone(model, TARGETS[0], True)
        assert 0 < recipes() <= 7


def test_no_longer_axes_are_remembered_than_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    for most in (2**20, 4_000, 40):
        repeats._recipes.cache_clear()
        monkeypatch.setattr(repeats, "_MOST_ENTRIES", most)
        for seed in range(6):
            model = random_network(seed)
            assert made(model, TARGETS[0], False) == by_rules_alone(model, TARGETS[0], False)
        held.append(entries())
        assert held[-1] <= most
    assert held[0] > held[1] > held[2]


def entries() -> int:
    """Return the entries of axes with several classes in all keys and results that are remembered."""
    known = repeats._recipes(TARGETS[0], (("", OPSET),))._known
    forms = [form[0] for key in known for form in key[3] if form is not None]
    results = [one.result.parts for one in known.values() if not isinstance(one.result, int)]
    return sum(part.size for parts in (*forms, *results) for part in parts if not part.is_one)


def test_a_large_stored_tensor_is_not_kept() -> None:
    model = random_network(1)
    model.graph.inputs[0].shape = ir.Shape(["batch", 3, 64, 64])  # matrices of 32 kB, where all positions differ
    made(model, TARGETS[0], False)
    known = repeats._recipes(TARGETS[0], (("", OPSET),))
    arrays = [action.array for recipe in known._known.values() for action in recipe.actions if hasattr(action, "array")]
    assert known
    assert max(array.nbytes for array in arrays) <= 2**14


def with_stored_row(numbers: npt.NDArray[np.float32]) -> ir.Model:
    """Return a network that ends in a product with a stored row `[1, features]`, which stays as it is."""
    b = GraphBuilder("stored")
    features = tensor_input("input", ["batch", numbers.size])
    x = b.op("Sigmoid", [b.op("Mul", [features, b.parameter("scale", [numbers.size])], "product")], "sigmoid")
    x = b.op("Gemm", [x, b.floats(numbers[None], "row")], "sum", transB=1)
    return b.model([features], [typed_output(x, ["batch", 1])])


# Few numbers tell nodes apart, more are like no others, and so many are not known.
@pytest.mark.parametrize("features", [4, 40, 5000])
def test_numbers_that_one_network_stores_are_not_those_of_the_next(features: int) -> None:
    rng = np.random.default_rng(0)
    fed = rng.standard_normal((8, features), np.float32)
    roles = {"row": "constant", "scale": "weight"}
    options: dict[str, Any] = {"inputs": fed, "batch": 8, "weights": (0.1, 2.0), "roles": roles}
    seen, graphs = set(), []
    for _ in range(3):
        model = with_stored_row(rng.permutation(features).astype(np.float32) - features / 4)  # no two are equal
        plain = score(model, arithmetic="float32", lump=False, **options).raw_score
        seen.add(plain)
        for arithmetic in ("exact", "float32", "auto"):
            assert score(model, arithmetic=arithmetic, **options).raw_score == pytest.approx(plain, rel=1e-3)
        planned = plan(load_model(model), 8, GraphOptions(roles=roles)).with_shapes()
        graphs.append(lump(planned.model, planned.decisions, planned.specs, planned.name, TARGETS[0], parts={}).graph)
    assert len(seen) == 3  # the numbers matter
    kinds: dict[Kind, set[Any]] = {}
    for graph in graphs:
        for node in graph.nodes:
            if node.kind is not None:
                stored = [graph.initializers.get(tensor) for tensor in node.inputs if tensor is not None]
                kinds.setdefault(node.kind, set()).add(tuple(None if a is None else a.tobytes() for a in stored))
    assert kinds
    assert all(len(numbers) == 1 for numbers in kinds.values())


def parsed(body: str, **stored: npt.NDArray[np.float32]) -> onnx.ModelProto:
    """Return a network `[N, 6]` to `[N, 4]`."""
    proto = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[N, 6] x) => (float[N, 4] y)
        <int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] two = {{2}}, int64[1] six = {{6}}> {{ {body} }}"""
    )
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in stored.items())
    return proto


TURNED = """a1 = Unsqueeze({0}, one)  t1 = Transpose<perm = [1, 0, 2]>(a1)  v1 = Squeeze(t1, zero)
    b1 = Unsqueeze({1}, one)  t2 = Transpose<perm = [0, 2, 1]>(b1)  v2 = Squeeze(t2, two)"""
"""Two operands of one form each: what they are reshapes of is one tensor where {0} and {1} are."""


def one_base(same: bool) -> onnx.ModelProto:
    other = "a" if same else "b"
    return parsed(
        f"a = Sigmoid(x)  b = Tanh(x)  {TURNED.format('a', other)}"
        "  c = Concat<axis = 1>(v1, v2)  h = MatMul(c, w)  y = Sigmoid(h)",
        w=np.ones((12, 4), np.float32),
    )  # fmt: skip


def one_number(same: bool) -> onnx.ModelProto:
    value = 2.0 if same else 3.0  # beside the 2 of alpha
    return parsed(
        f"""s = Tanh(x)  g = Gemm<alpha = 2.0>(s, w)  r = Relu(g)  l = Concat<axis = 0>(one, long)
        e = ConstantOfShape<value = float[1] {{{value}}}>(l)  c = Slice(e, zero, six, one)  a = Sub(r, c)
        t = Tanh(a)  h = MatMul(t, v)  y = Tanh(h)""",
        w=np.ones((6, 6), np.float32), v=np.ones((6, 4), np.float32), long=np.asarray([5000]),
    )  # fmt: skip


def signed_zero(same: bool) -> onnx.ModelProto:
    proto = parsed(
        "h = MatMul(x, w)  l = LeakyRelu<alpha = 0.5>(h)  r = Reciprocal(l)  c = Atan(r)  y = MatMul(c, v)",
        w=np.ones((6, 4), np.float32), v=np.ones((4, 4), np.float32),
    )  # fmt: skip
    proto.graph.node[1].attribute[0].f = 0.0 if same else -0.0
    return proto


@pytest.mark.parametrize("arithmetic", ["exact", "float32"])
@pytest.mark.parametrize("make", [one_base, one_number, signed_zero])
def test_what_is_one_tensor_by_chance_is_not_one_in_the_next_network(make: Any, arithmetic: Any) -> None:
    def scores(*order: bool) -> list[float | None]:
        repeats._recipes.cache_clear()
        return [score(make(same), weights=(0.3, 1.0), batch=8, arithmetic=arithmetic).raw_score for same in order]

    (first,), (second,) = scores(True), scores(False)
    assert first != second or (make is signed_zero and arithmetic == "exact")  # which knows one zero
    assert scores(True, False, True) == [first, second, first]
    assert scores(False, True, False) == [second, first, second]


@pytest.mark.parametrize("lump", [True, False])
def test_what_is_one_tensor_by_chance_is_not_one_in_the_next_node(lump: bool) -> None:
    found = score(
        parsed(
            f"""a = Sigmoid(x)  b = Tanh(x)  {TURNED.format("a", "b")}
            a2 = Transpose<perm = [0, 2, 1]>(a1)  w1 = Squeeze(a2, two)
            c = Concat<axis = 1>(v1, w1)  d = Concat<axis = 1>(v1, v2)  p = Sub(c, d)
            h = MatMul(p, w)  y = Sigmoid(h)""",
            w=np.ones((12, 4), np.float32),
        ),
        lump=lump,
    )  # fmt: skip
    assert found.status == "ok", found.reason
