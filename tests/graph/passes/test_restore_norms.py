"""Folded BatchNorm put back: real exports of the same network, and the evidence one piece at a time."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epsinas_onnx import Score, Status, UsageError, inspect, score
from epsinas_onnx.graph.analysis.folded_norms import find_folded
from epsinas_onnx.graph.analysis.layers import METADATA, Kind
from epsinas_onnx.graph.analysis.ranks import Ranks
from epsinas_onnx.graph.load import load_model
from epsinas_onnx.graph.passes.infer_shapes import infer_shapes
from epsinas_onnx.graph.traversal import StaticValues
from tests.builders import build
from tests.tiers import tiered

EXPORTS = Path(__file__).parents[2] / "data" / "folded_exports.zip"
FOUND = {
    "torch-resnet18": 20, "torch-resnet50": 53, "torch-mobilenet_v2": 52, "torch-mobilenet_v3_small": 34,
    "torch-efficientnet_b0": 49, "torch-densenet121": 59, "torch-regnet_y_400mf": 53, "torch-vgg11": 0,
    "torch-vgg11_bn": 8, "torch-unet": 10, "torch-yolo": 30, "torch-nb201": 50, "keras-ResNet50": 53,
    "keras-MobileNetV2": 52, "keras-MobileNetV3Small": 34, "keras-EfficientNetB0": 49, "keras-DenseNet121": 121,
    "keras-VGG16": 0,
}  # fmt: skip
"""How many BatchNorms the modules have that were folded, counted in PyTorch and Keras."""
LARGE = {"keras-ResNet50", "torch-efficientnet_b0"}
LONG = {
    "keras-DenseNet121", "keras-EfficientNetB0", "keras-MobileNetV2", "torch-densenet121", "torch-mobilenet_v2",
    "torch-regnet_y_400mf", "torch-resnet50", "torch-vgg11", "torch-vgg11_bn", "torch-yolo",
}  # fmt: skip
"""What takes longest, and is of a kind with others."""
EPSILON_LOST = {"torch-mobilenet_v3_small.old": "its epsilon is 1e-3, and this exporter keeps no record of it"}
CONSTANTS = ((1e-3, 1.0), (1e-2, 0.1))


def exports() -> dict[str, dict[str, bytes]]:
    """Return the stored exports by network and form."""
    with zipfile.ZipFile(EXPORTS) as files:
        found: dict[str, dict[str, bytes]] = {}
        for name in files.namelist():
            network, form = name.removesuffix(".onnx").split(".")
            found.setdefault(network, {})[form] = files.read(name)
    return found


def scored(model: bytes | onnx.ModelProto, weights: tuple[float, float], **options: Any) -> Score:
    # Noise rather than the grey ramp: equal pixels leave ties that rounding breaks (docs/restoring.md).
    return score(model, weights=weights, batch=8, inputs="normal", providers="cpu", **options)


def raw(model: bytes | onnx.ModelProto, weights: tuple[float, float], **options: Any) -> tuple[str, float | None]:
    found = scored(model, weights, **options)
    return str(found.status), found.raw_score


@pytest.mark.parametrize("network", tiered(FOUND, slow=LARGE, exhaustive=LONG))
def test_every_export_of_a_network_is_restored_as_it_was_folded_and_has_the_same_score(network: str) -> None:
    forms = exports()[network]
    assert len(forms) > 1
    count = 0
    for weights in CONSTANTS:
        expected = scored(forms.get("unfolded") or forms["stored"], weights)
        for form, data in forms.items():
            found = scored(data, weights)
            notes = [int(note.split()[0]) for note in found.warnings if "BatchNorm restored" in note]
            assert notes == ([FOUND[network]] if FOUND[network] and form != "unfolded" else []), form
            if f"{network}.{form}" in EPSILON_LOST:
                continue
            assert found.status == expected.status, (form, weights)
            if found.status is Status.OK:
                assert found.raw_score == pytest.approx(expected.raw_score, rel=1e-4, abs=1e-7), (form, weights)
                count += 1
    assert count or "vgg" in network.lower()


def test_a_network_without_batchnorm_differs_from_one_with() -> None:
    found = exports()
    assert not [note for note in inspect(found["torch-vgg11"]["old"]).warnings if "convolutions" in note]


# The evidence, one piece at a time. A chain of convolutions, each with a bias and an activation.


def chain(
    count: int = 9, weight: str = "w{}", bias: str | None = "b{}", node: str = "conv{}", act: str = "act{}",
    activation: str = "Relu", tail: str = "",
) -> onnx.ModelProto:  # fmt: skip
    lines, tensors, value = [], {}, "x"
    for i in range(count):
        names = [weight.format(i), *([bias.format(i)] if bias else [])]
        tensors |= {f"w{i}": (4, 4, 3, 3)} | ({f"b{i}": (4,)} if bias else {})
        operands = ", ".join([value, f"w{i}", *([f"b{i}"] if bias else [])])
        lines.append(f"c{i} = Conv<pads = [1, 1, 1, 1]>({operands})")
        if activation == "Swish":
            lines += [f"s{i} = Sigmoid(c{i})", f"a{i} = Mul(c{i}, s{i})"]
        else:
            lines.append(f"a{i} = {activation}(c{i})")
        value = f"a{i}"
        del names
    lines.append(tail or f"y = GlobalAveragePool({value})")
    proto = build(f"(float[N,4,8,8] x) => (float[N,4,1,1] y) {{ {'  '.join(lines)} }}", **tensors)
    renamed = {f"w{i}": weight.format(i) for i in range(count)}
    renamed |= {f"b{i}": bias.format(i) for i in range(count)} if bias else {}
    for tensor in proto.graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)
    for entry in proto.graph.node:
        entry.input[:] = [renamed.get(name, name) for name in entry.input]
        if not entry.output[0][1:].isdecimal():
            continue
        if entry.op_type == "Conv":
            entry.name = node.format(int(entry.output[0][1:]))
        elif entry.op_type in ("Relu", "Sigmoid", "Clip"):
            entry.name = act.format(int(entry.output[0][1:]))
    return proto


def kinds(proto: onnx.ModelProto, which: str = "auto") -> list[Kind]:
    model = load_model(proto).model
    infer_shapes(model)
    return [finding.kind for finding in find_folded(model, StaticValues.of(model), Ranks(), which)]


def record(proto: onnx.ModelProto, key: str, value: str, *numbers: int) -> onnx.ModelProto:
    convolutions = [node for node in proto.graph.node if node.op_type == "Conv"]
    for number in numbers or range(len(convolutions)):
        convolutions[number].metadata_props.add(key=key, value=value)
    return proto


RULE = "pkg.onnxscript.rewriter.rule_name"
FOLDED = {
    "the exporter's rule": lambda: record(chain(bias=None), RULE, "FuseBatchNormIntoConv, RemoveOptionalBiasFromConv"),
    "the module's class": lambda: record(chain(), "namespace", ": m.Net/bn1: torch.nn.BatchNorm2d/x: aten.y"),
    "names of the older exporter": lambda: chain(weight="onnx::Conv_1{}", bias="onnx::Conv_2{}"),
    "names of nodes": lambda: chain(node="net/conv{}_bn/FusedBatchNormV3"),
    "names of tensors": lambda: chain(bias="batch_normalization_{}/sub:0"),
    "the place in a Sequential": lambda: chain(node="/f/f.{}0/Conv", act="/f/f.{}2/Relu"),
    "swish": lambda: chain(activation="Swish"),
    "our own record": lambda: record(chain(bias=None), METADATA, "folded"),
}
OWN = {
    "no bias": lambda: chain(bias=None),
    "few of them": lambda: chain(count=5, activation="Swish"),
    "the place in a Sequential": lambda: chain(node="/f/f.{}0/Conv", act="/f/f.{}1/Relu"),
    "our own record": lambda: record(chain(activation="Swish"), METADATA, "own"),
    "words that only look alike": lambda: chain(node="turbnet{}", bias="subnet{}.abnormal"),
}


@pytest.mark.parametrize("make", FOLDED.values(), ids=FOLDED)
def test_evidence_of_folding(make: Any) -> None:
    assert set(kinds(make())) == {Kind.FOLDED}


@pytest.mark.parametrize("make", OWN.values(), ids=OWN)
def test_evidence_against_folding(make: Any) -> None:
    assert not set(kinds(make())) & {Kind.FOLDED}


def test_all_wins_over_a_record_that_strip_wrote() -> None:
    proto = record(chain(activation="Swish"), METADATA, "own", 0, 1)
    assert set(kinds(proto)[:2]) == {Kind.OWN}
    assert set(kinds(proto, "all")) == {Kind.FOLDED}


def test_without_evidence_there_is_a_doubt_that_names_convolutions_and_reason() -> None:
    proto = chain()
    assert set(kinds(proto)) == {Kind.DOUBT}
    note = next(note for note in inspect(proto).warnings if "convolutions" in note)
    assert "9 convolutions ('conv0', 'conv1', 'conv2', ...)" in note
    assert "--restore-batchnorm all" in note


def test_traces_on_some_convolutions_acquit_the_others() -> None:
    proto = record(chain(), RULE, "FuseBatchNormIntoConv", 0, 1, 2)
    assert kinds(proto) == [Kind.FOLDED] * 3 + [Kind.OWN] * 6


@pytest.mark.parametrize(
    ("which", "expected"),
    [("none", set()), ("all", set(range(9))), ("conv[135]", {1, 3, 5}), ("nothing*", set())],
)
def test_the_user_has_the_last_word(which: str, expected: set[int]) -> None:
    found = kinds(chain(activation="Swish"), which)
    assert {number for number, kind in enumerate(found) if kind is Kind.FOLDED} == expected


def test_a_name_that_no_layer_has_is_said() -> None:
    notes = inspect(chain(activation="Swish"), restore_batchnorm="nope*").warnings
    assert "no layer has a name that 'nope*' matches, so no BatchNorm was restored" in notes
    for which in ("auto", "none", "conv1"):
        assert not [one for one in inspect(chain(), restore_batchnorm=which).warnings if "matches" in one]


HEADS = {
    "output": "y = Conv(a8, w9, b9)",
    "behind layout": "h = Conv(a8, w9, b9)  y = Transpose<perm = [0, 2, 3, 1]>(h)",
    "sigmoid": "h = Conv(a8, w9, b9)  y = Sigmoid(h)",
    "softmax": "h = Conv(a8, w9, b9)  y = Softmax<axis = 1>(h)",
}


@pytest.mark.parametrize("tail", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("which", ["auto", "all"])
def test_heads_never_had_a_normalisation(tail: str, which: str) -> None:
    proto = chain(activation="Swish", tail=tail)
    for name, shape in (("w9", (4, 4, 1, 1)), ("b9", (4,))):
        array = onnx.numpy_helper.to_array(
            build("(float x) => (float y) { y = Add(x, t) }", t=shape).graph.initializer[0]
        )
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    assert kinds(proto, which) == [Kind.FOLDED] * 9 + [Kind.OWN]


GATES = {
    "sigmoid": "g = Sigmoid(q)",
    "hard sigmoid": "g = HardSigmoid(q)",
    "hard sigmoid in parts": "t = Add(q, three)  u = Clip(t, zero, six)  g = Mul(u, sixth)",
}


@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
def test_squeeze_and_excitation_never_had_a_normalisation(gate: str) -> None:
    tail = f"p = GlobalAveragePool(a8)  r = Conv(p, w9, b9)  z = Relu(r)  q = Conv(z, w10, b10)  {gate}  y = Mul(a8, g)"
    proto = chain(activation="Swish", tail=tail)
    scalars = {"three": 3.0, "zero": 0.0, "six": 6.0, "sixth": 1 / 6}
    for name, value in scalars.items():
        proto.graph.initializer.append(onnx.helper.make_tensor(name, 1, [], [value]))
    for name, shape in {"w9": (4, 4, 1, 1), "b9": (4,), "w10": (4, 4, 1, 1), "b10": (4,)}.items():
        count = 64 if len(shape) == 4 else 4
        proto.graph.initializer.append(onnx.helper.make_tensor(name, 1, shape, [0.1] * (16 if count == 64 else 4)))
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    assert kinds(proto, "all") == [Kind.FOLDED] * 9 + [Kind.OWN] * 2


def affine(*steps: str) -> onnx.ModelProto:
    """Return a convolution with affine operators behind it: M multiplies by, A adds, S subtracts a stored vector."""
    lines, tensors, value = ["c = Conv(x, w)"], {"w": (6, 4, 3, 3)}, "c"
    for i, step in enumerate(steps):
        operator = {"M": "Mul", "A": "Add", "S": "Sub"}[step]
        lines.append(f"t{i} = {operator}({value}, v{i})")
        tensors[f"v{i}"] = (6, 1, 1)
        value = f"t{i}"
    lines.append(f"r = Relu({value})  d = Conv(r, u)  y = Tanh(d)")
    return build(f"(float[N,4,8,8] x) => (float[N,3,4,4] y) {{ {'  '.join(lines)} }}", u=(3, 6, 3, 3), **tensors)


NORMALISED = build(
    "(float[N,4,8,8] x) => (float[N,3,4,4] y) { c = Conv(x, w)  n = BatchNormalization(c, s, b, m, v)  r = Relu(n)"
    "  d = Conv(r, u)  y = Tanh(d) }",
    w=(6, 4, 3, 3), s=(6,), b=(6,), m=(6,), v=(6,), u=(3, 6, 3, 3),
)  # fmt: skip


@pytest.mark.parametrize("steps", ["SMA", "ASMA", "AMA", "SMMA", "MA"])
def test_arithmetic_with_stored_statistics_is_a_normalisation(steps: str) -> None:
    expected = raw(NORMALISED, (0.01, 0.1))
    assert expected[0] == Status.OK
    assert raw(affine(*steps), (0.01, 0.1))[1] == pytest.approx(expected[1], rel=1e-5)


@pytest.mark.parametrize("steps", ["A", "M", "AM"])
def test_a_bias_and_a_layer_scale_are_none(steps: str) -> None:
    assert Kind.FOLDED not in kinds(affine(*steps))


def test_preprocessing_is_no_normalisation() -> None:
    graph = (
        "(float[N,3,8,8] x) => (float[N,6,1,1] y) { a = Sub(x, m)  b = Mul(a, d)  e = Add(b, m)  c = Conv(e, w)"
        "  y = GlobalAveragePool(c) }"
    )
    assert Kind.FOLDED not in kinds(build(graph, w=(6, 3, 3, 3), m=(3, 1, 1), d=(3, 1, 1)))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from(["Relu", "Tanh"])), min_size=1, max_size=4))
def test_a_restored_chain_scores_as_the_unfolded_one(layers: list[tuple[bool, bool, str]]) -> None:
    """Each layer: whether it has a normalisation, whether its convolution keeps a bias when that was folded."""

    def written(folded: bool) -> onnx.ModelProto:
        lines, tensors, value, width = [], {}, "x", 3
        for i, (normalised, bias, activation) in enumerate(layers):
            outputs = 3 + i
            tensors[f"w{i}"] = (outputs, width, 3, 3)
            operands = f"{value}, w{i}"
            if bias and (folded or not normalised):
                tensors[f"b{i}"] = (outputs,)
                operands += f", b{i}"
            lines.append(f"c{i} = Conv<pads = [1, 1, 1, 1]>({operands})")
            if normalised and not folded:
                tensors |= {f"{name}{i}": (outputs,) for name in "smtv"}
                lines.append(f"n{i} = BatchNormalization(c{i}, s{i}, m{i}, t{i}, v{i})")
            before = f"n{i}" if normalised and not folded else f"c{i}"
            lines.append(f"a{i} = {activation}({before})")
            value, width = f"a{i}", outputs
        lines.append(f"y = GlobalAveragePool({value})")
        proto = build(f"(float[N,3,6,6] x) => (float[N,{width},1,1] y) {{ {'  '.join(lines)} }}", **tensors)
        if folded:
            for number, (normalised, _, _) in enumerate(layers):
                record(proto, METADATA, "folded" if normalised else "own", number)
        return proto

    for weights, lump in itertools.product(((1e-3, 1.0), (0.1, 0.5)), (True, False)):
        ours, theirs = (raw(written(folded), weights, lump=lump) for folded in (True, False))
        assert ours[0] == theirs[0]
        if ours[0] == Status.OK:
            assert ours[1] == pytest.approx(theirs[1], rel=1e-5)


def test_a_wrong_choice_is_refused() -> None:
    with pytest.raises(UsageError, match="--restore-batchnorm"):
        score(chain(), restore_batchnorm="")


def names(proto: onnx.ModelProto) -> Iterator[str]:
    return (str(node.name) for node in proto.graph.node)


def test_what_the_user_named_is_still_found() -> None:
    proto = record(chain(), METADATA, "folded")
    named = score(proto, weights=(1e-3, 1.0), batch=8, outputs="c8", providers="cpu")
    assert named.output == ("c8",)
    assert any("9 BatchNorm restored" in note for note in named.warnings)
