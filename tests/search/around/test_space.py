"""The variants of a network as a search space: what is drawn runs, texts are canonical, and refusals name the part."""

from __future__ import annotations

import pickle
import random
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epsinas_exporters import classics
from epsinas_exporters.builder import GraphBuilder, tensor_input, typed_output
from epsinas_exporters.spaces import ArchitectureError, NotEnumerable
from epsinas_onnx import fill, score
from epsinas_onnx.edit.strip import strip
from epsinas_onnx.errors import ModelError, UsageError
from epsinas_onnx.graph.fingerprint import fingerprint
from epsinas_onnx.scoring.result import same_score
from epsinas_onnx.search.around.decisions import KINDS
from epsinas_onnx.search.around.space import Around
from tests.builders import build

NETWORKS = {
    "residual": lambda: residual(),
    "transformer": lambda: classics.transformer(50, 32, 4, 2, 8),
    "lstm": lambda: classics.lstm(50, 16, 24, 2, 8),
    "mlp": classics.mlp,
    "llama": lambda: classics.llama(2, 32, 4, 64, 50, 2),
}


def residual() -> ir.Model:
    """Two residual blocks, the inner convolutions of one depthwise, and a squeeze-and-excitation."""
    b = GraphBuilder("residual")
    image = tensor_input("input", ["batch", 3, 16, 16])
    x = b.op("Relu", [b.batch_norm(b.conv(image, "stem", 3, 8, 3), "stem.bn", 8)], "stem.relu")
    y = b.op("Relu", [b.batch_norm(b.conv(x, "a.1", 8, 12, 3), "a.1.bn", 12)], "a.1.relu")
    x = b.op("Add", [x, b.batch_norm(b.conv(y, "a.2", 12, 8, 3), "a.2.bn", 8)], "a.add")
    y = b.batch_norm(b.conv(x, "b.expand", 8, 24, 1), "b.expand.bn", 24)
    y = b.op("Mul", [y, b.op("Sigmoid", [y], "b.sigmoid")], "b.silu")
    y = b.batch_norm(b.conv(y, "b.depthwise", 24, 24, 5, 1, 24), "b.depthwise.bn", 24)
    gate = b.op("Relu", [b.conv(b.op("GlobalAveragePool", [y], "b.pool"), "b.squeeze", 24, 6, 1)], "b.squeeze.relu")
    y = b.op("Mul", [y, b.op("Sigmoid", [b.conv(gate, "b.excite", 6, 24, 1)], "b.gate")], "b.gated")
    x = b.op("Add", [x, b.batch_norm(b.conv(y, "b.project", 24, 8, 1), "b.project.bn", 8)], "b.add")
    x = b.op("Flatten", [b.op("GlobalAveragePool", [x], "pool")], "flatten")
    return b.model([image], [typed_output(b.linear(x, "output", 8, 4), ["batch", 4])])


SPACES = st.sampled_from(sorted(NETWORKS))
FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@cache
def around(name: str) -> Around:
    return Around(NETWORKS[name]())


def run(proto: onnx.ModelProto, seed: int = 0) -> dict[str, Any]:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else 2 if axis == 0 else 8 for axis, size in enumerate(value.shape)]
        tokens = value.type == "tensor(int64)"
        feeds[value.name] = rng.integers(0, 50, shape) if tokens else rng.standard_normal(shape).astype(np.float32)
    return dict(zip([one.name for one in session.get_outputs()], session.run(None, feeds), strict=True))


@FEW
@given(SPACES, st.integers(0, 10_000))
def test_what_is_drawn_is_in_the_space_and_runs_with_the_outputs_of_the_original(name: str, seed: int) -> None:
    space = around(name)
    rng = random.Random(seed)
    arch = space.draw(rng)
    arch = space.mutate(arch, rng) if rng.random() < 0.5 else arch
    assert space.parse(arch) == arch
    proto = ir.to_proto(space.build(arch))
    onnx.checker.check_model(proto)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    found, wanted = run(fill(proto)), run(fill(ir.to_proto(space.build("original"))))
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in wanted.items()}
    assert all(np.isfinite(value).all() for value in found.values())


@FEW
@given(SPACES, st.integers(0, 10_000))
def test_different_texts_are_different_networks_and_equal_ones_are_equal(name: str, seed: int) -> None:
    space = around(name)
    rng = random.Random(seed)
    first = space.draw(rng)
    second = space.mutate(first, rng)
    assert first != second
    assert fingerprint(space.build(first)) == fingerprint(space.build(first)) != fingerprint(space.build(second))


def test_blocks_inside_of_one_that_is_left_out_are_not_decided() -> None:
    space = around("llama")
    assert space.parse("depth:l1=0;depth:l1.out=2") == "depth:l1=0"
    assert space.parse("depth:l1=0;depth:l0.out=2") == "depth:l0.out=2;depth:l1=0"
    assert space.parse("depth:l1=2;depth:l1.out=2") == "depth:l1=2;depth:l1.out=2"


@FEW
@given(SPACES, st.integers(0, 10_000))
def test_a_mutation_differs_in_one_decision_or_in_what_that_one_leaves_without_a_meaning(name: str, seed: int) -> None:
    space = around(name)
    rng = random.Random(seed)
    first = space.draw(rng)
    second = space.mutate(first, rng)
    changed = set(first.split(";")) ^ set(second.split(";")) - {"original"}
    decided = {part.partition("=")[0] for part in changed - {"original"}}
    depths = {key for key in decided if key.startswith("depth:")}
    outermost = {key for key in depths if not any(key.startswith(f"{other}.") for other in depths)}
    assert len(decided) == 1 or len(outermost) == 1


@FEW
@given(SPACES, st.integers(0, 10_000))
def test_choices_make_the_architecture_that_they_came_from(name: str, seed: int) -> None:
    space = around(name)
    rng = random.Random(seed)
    choices = {key: rng.choice(list(offered)) for key, offered in space.decisions().items()}
    try:
        arch = space.from_choices(choices)
    except ArchitectureError:
        return
    for part in arch.split(";"):
        if part != "original":
            key, _, value = part.partition("=")
            assert str(choices[key]) == value


def test_the_original_is_an_architecture() -> None:
    for name, make in NETWORKS.items():
        space = around(name)
        assert space.check("original") == "original"
        built = space.build("original")
        assert run(fill(ir.to_proto(built))).keys() == run(fill(ir.to_proto(make()))).keys()
        assert same_score(score(built, batch=8).score, score(make(), batch=8).score)


def test_the_file_is_left_as_it_is_and_read_without_its_weights() -> None:
    model = classics.mlp()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    space = Around(model)
    space.build("width:layer1.linear=256")
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    full = fill(model)
    assert Around(full).choices() == Around(strip(full)).choices() == space.choices()


def test_a_network_is_built_in_another_process() -> None:
    space = around("mlp")
    network = space.network("width:layer1.linear=256")
    again = pickle.loads(pickle.dumps(network))
    assert again.name == "width:layer1.linear=256"
    assert fingerprint(again.build()) == fingerprint(space.build("width:layer1.linear=256"))
    assert len(pickle.dumps(network)) < 20_000


def test_the_order_and_the_void_parts_of_a_text_do_not_count() -> None:
    space = around("transformer")
    assert space.parse("width:layer0.mlp1=64;width:embedding=16") == "width:embedding=16;width:layer0.mlp1=64"
    assert space.parse("width:embedding=32; activation:relu=gelu") == "activation:relu=gelu"
    assert space.parse("depth:layer0-layer1=1;width:layer1.mlp1=64") == "depth:layer0-layer1=1"
    assert space.parse("depth:layer0-layer1=0;activation:relu=gelu") == "depth:layer0-layer1=0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("narrow", "'narrow' is no change of a network"),
        ("width:embeding=16", "did you mean embedding"),
        ("width:embedding=17x", "'17x' is no whole number"),
        ("width:embedding=1000", "the width of embedding is 32 and can be a multiple of 1 from 8 to 64"),
        ("width:layer0.attention.query=20", "can be a multiple of 8"),
        ("depth:layer0-layer1=9", "has 2 blocks and can have 0 to 4"),
        ("activation:relu=sine", "choose one of relu, leakyrelu"),
        ("kernel:embedding=5", "nothing called 'embedding' has a kernel that can be changed; there is none"),
        ("width:embedding=16;width:embedding=24", "decided twice"),
    ],
)
def test_a_text_that_is_wrong_names_the_part(text: str, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        around("transformer").parse(text)


def test_a_block_between_unequal_widths_is_not_left_out() -> None:
    model = build(
        "(float[N,8] x) => (float[N,2] y) "
        "{ a = MatMul(x, A) r = Relu(a) b = MatMul(r, B) s = Relu(b) y = MatMul(s, C) }",
        A=(8, 16), B=(16, 16), C=(16, 2),
    )  # fmt: skip
    space = Around(model)
    [depth] = [name for kind, name in space.choices() if kind == "depth"]
    widths = [name for kind, name in space.choices() if kind == "width"]
    assert len(widths) == 2
    assert space.check(f"depth:{depth}=0")
    with pytest.raises(ArchitectureError, match=f"'depth:{depth}=0': the widths before and behind are 8 and 16"):
        space.parse(f"width:{widths[0]}=8;depth:{depth}=0")


def test_only_the_kinds_that_are_asked_for_are_changed() -> None:
    for kind in KINDS:
        space = Around(classics.mobilenet_v2(10, 32), kinds=[kind])
        arch = space.draw(random.Random(1))
        assert {part.partition(":")[0] for part in arch.split(";")} <= {kind, "original"}
    with pytest.raises(ArchitectureError, match="kernel is not changed in this search, only activation"):
        space.parse("kernel:stem.conv=5")


def test_bounds_hold_for_every_width_and_depth() -> None:
    space = Around(classics.mobilenet_v2(10, 32), narrowest=0.5, widest=1, deepest=1)
    widths = space.template.widths
    rng = random.Random(2)
    for _ in range(10):
        for part in space.draw(rng).split(";"):
            key, _, value = part.partition("=")
            kind, _, name = key.partition(":")
            if kind == "width":
                assert widths[name].size / 2 <= int(value) < widths[name].size
            elif kind == "depth":
                assert int(value) < space.template.depths[name].blocks.count


def test_wrong_bounds_and_kinds_are_named() -> None:
    with pytest.raises(UsageError, match="there is no change 'colour'; choose some of width"):
        Around(classics.mlp(), kinds=["colour"])
    with pytest.raises(UsageError, match="widest is 9; it must be from 1 to 4"):
        Around(classics.mlp(), widest=9)
    with pytest.raises(ModelError, match=r"nowhere\.onnx"):
        Around("nowhere.onnx")


def test_the_space_has_no_list() -> None:
    with pytest.raises(NotEnumerable):
        next(around("mlp").enumerate())
    with pytest.raises(TypeError, match="no size 'classes'"):
        around("mlp").build("original", classes=3)
