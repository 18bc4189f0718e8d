"""Padding, interpolation and pixel shuffles equal ONNX Runtime's on expanded operands, whatever the partitions are."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from epsinas_onnx.lump.partition import Partition
from tests.lump.harness import Operand, check, examples, known, operands

_one, _discrete = Partition.one, Partition.discrete


def _image(channels: Partition, side: Partition) -> Operand:
    counts = (2, channels.count, side.count, side.count)
    return Operand(np.random.default_rng(0).random(counts, np.float32), (_discrete(2), channels, side, side))


@examples(70)
@given(data=st.data())
def test_pad(data: st.DataObject) -> None:
    mode = data.draw(st.sampled_from(["constant", "constant", "edge", "reflect", "wrap"]))
    shape = [data.draw(st.integers(4, 6)) for _ in range(data.draw(st.integers(1, 3)))]
    form = data.draw(st.sampled_from(["attribute", "input", "axes"])) if mode != "wrap" else "input"
    axes = list(range(len(shape)))
    if form == "axes":
        axes = data.draw(st.lists(st.sampled_from(axes), min_size=1, unique=True))
    pads = [data.draw(st.integers(-1, 2)) for _ in range(2 * len(axes))]
    if mode == "wrap":
        assume(min(pads) >= 0)
    constants = data.draw(st.integers(1, 2))
    given = {"x": data.draw(operands(shape, constants=constants, factors=True, layouts=True))}
    number = data.draw(st.sampled_from([0.0, -1.5]))
    if form == "attribute":
        node = onnx.helper.make_node("Pad", ["x"], ["y"], mode=mode, pads=pads, value=number)
        opset = 10
    else:
        given["pads"] = known(pads)
        names = ["x", "pads"]
        if number:
            given["value"] = known(number, np.float32)
            names.append("value")
        if form == "axes":
            names += [""] * (3 - len(names)) + ["axes"]
            given["axes"] = known([axis - len(shape) * data.draw(st.integers(0, 1)) for axis in axes])
        node = onnx.helper.make_node("Pad", names, ["y"], mode=mode)
        opset = {"axes": 18}.get(form, 19 if mode == "wrap" else 13)
    check(node, given, opset=opset, constants=constants, rtol=0, atol=0)


def test_padding_is_one_class() -> None:
    node = onnx.helper.make_node("Pad", ["x", "pads"], ["y"])
    given = {"x": _image(_one(8), _one(5)), "pads": known([0, 0, 2, 2, 0, 0, 2, 2])}
    lowered = check(node, given, rtol=0, atol=0)
    assert lowered.values[0].counts == (2, 1, 2, 2)
    assert lowered.values[0].axes[2] == Partition.of([0, 0, 1, 1, 1, 1, 1, 0, 0])


@examples(35)
@given(data=st.data())
def test_shuffles(data: st.DataObject) -> None:
    size, inner = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
    n, h, w = (data.draw(st.integers(1, 3)) for _ in range(3))
    attributes: dict[str, Any] = {"blocksize": size}
    op_type = data.draw(st.sampled_from(["DepthToSpace", "SpaceToDepth"]))
    if op_type == "DepthToSpace":
        shape = [n, inner * size * size, h, w]
        mode = data.draw(st.sampled_from([None, "DCR", "CRD"]))
        if mode is not None:
            attributes["mode"] = mode
    else:
        shape = [n, inner, h * size, w * size]
    constants = data.draw(st.integers(1, 2))
    given = {"x": data.draw(operands(shape, constants=constants, factors=True, layouts=True))}
    node = onnx.helper.make_node(op_type, ["x"], ["y"], **attributes)
    check(node, given, opset=13, constants=constants, rtol=0, atol=0)


@pytest.mark.parametrize(("op_type", "channels", "inside"), [("DepthToSpace", 8, 2), ("SpaceToDepth", 2, 8)])
def test_shuffled_channels_of_one_class_stay_one(op_type: str, channels: int, inside: int) -> None:
    node = onnx.helper.make_node(op_type, ["x"], ["y"], blocksize=2)
    lowered = check(node, {"x": _image(_one(channels), _one(4))}, opset=13, rtol=0, atol=0)
    assert lowered.values[0].shape[1] == inside
    assert lowered.values[0].counts == (2, 1, 1, 1)


@examples(80)
@given(data=st.data())
def test_resize(data: st.DataObject) -> None:
    mode = data.draw(st.sampled_from(["nearest", "linear", "cubic"]))
    rank = 4 if mode == "cubic" else data.draw(st.sampled_from([3, 4]))
    shape = [data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)), *(data.draw(st.integers(1, 5)) for _ in range(
        rank - 2))]  # fmt: skip
    scales = [1.0, 1.0, *(data.draw(st.sampled_from([1.0, 0.5, 0.6, 1.3, 2.0, 3.0])) for _ in range(rank - 2))]
    sizes = [int(size * scale) for size, scale in zip(shape, scales, strict=True)]
    assume(0 not in sizes)
    constants = data.draw(st.integers(1, 2))
    given = {"x": data.draw(operands(shape, constants=constants, factors=True, layouts=True))}
    form = data.draw(st.sampled_from(["Upsample 7", "Upsample 9", "Resize 10", "Resize", "Resize", "Resize"]))
    attributes: dict[str, Any] = {"mode": mode}
    if form != "Resize":
        assume(mode != "cubic")
        opset = int(form.split()[1])
        if form.startswith("Upsample"):
            assume(min(scales) >= 1)
        if opset == 7:
            names, attributes["scales"] = ["x"], scales
        else:
            names, given["scales"] = ["x", "scales"], known(scales, np.float32)
    else:
        opset = data.draw(st.sampled_from([11, 13, 18]))
        ways = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
        attributes["coordinate_transformation_mode"] = data.draw(st.sampled_from(ways))
        if mode == "nearest":
            ways = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
            attributes["nearest_mode"] = data.draw(st.sampled_from(ways))
        if mode == "cubic":
            attributes["exclude_outside"] = data.draw(st.integers(0, 1))
            attributes["cubic_coeff_a"] = data.draw(st.sampled_from([-0.75, -0.5]))
        names = ["x", "" if opset > 11 else "roi", "scales"]
        if opset == 11:
            given["roi"] = known([], np.float32)
        if data.draw(st.booleans()):
            given["scales"] = known(scales, np.float32)
        else:
            names.append("sizes")
            given["sizes"] = known(sizes)
            if opset == 11:
                given["scales"] = known([], np.float32)
            else:
                names[2] = ""
    node = onnx.helper.make_node(form.split()[0], names, ["y"], **attributes)
    # Scales that change no size are left to the operator, because ONNX Runtime may take them for 1.
    by_sizes = "sizes" in given
    odd = not by_sizes and any(s != 1 and a == b for s, a, b in zip(scales, shape, sizes, strict=True))
    lowered = check(node, given, opset=opset, constants=constants, rtol=1e-5, atol=1e-5, ruled=not odd)
    if odd:
        return
    for have, made in zip(given["x"].parts, lowered.values[0].axes, strict=True):
        assert made.is_one or not have.is_one


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_enlarging_pooled_maps_computes_nothing(mode: str) -> None:
    node = onnx.helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], mode=mode)
    lowered = check(node, {"x": _image(_one(8), _discrete(1)), "sizes": known([2, 8, 16, 16])})
    assert lowered.values[0].counts == (2, 1, 1, 1)
    assert all(made.op_type != "Resize" for made in lowered.graph.nodes)


def test_interpolated_classes_stay_classes() -> None:
    node = onnx.helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear")
    x = _image(_one(8), Partition.of([0, 0, 1, 1]))
    lowered = check(node, {"x": x, "scales": known([1, 1, 1, 2], np.float32)})
    assert lowered.values[0].counts == (2, 1, 2, 4)  # of eight entries the outer two and inner two are equal
    assert all(made.op_type != "Resize" for made in lowered.graph.nodes)


def test_an_aspect_ratio_that_is_kept_is_left_to_the_operator() -> None:
    node = onnx.helper.make_node(
        "Resize", ["x", "", "", "sizes"], ["y"], mode="nearest", axes=[2, 3], keep_aspect_ratio_policy="not_larger"
    )
    check(node, {"x": _image(_one(3), _discrete(4)), "sizes": known([8, 6])}, ruled=False)


def test_a_scale_that_changes_no_size() -> None:
    """ONNX Runtime interpolates such an axis only where another one changes, which here is an axis of one class."""
    x = Operand(np.asarray([[[[1.0, 2.0]]]], np.float32), (_one(1), _one(1), _one(2), _discrete(2)))
    node = onnx.helper.make_node("Upsample", ["x", "scales"], ["y"])
    check(node, {"x": x, "scales": known([1, 1, 2, 1.3], np.float32)}, opset=9, ruled=False)
