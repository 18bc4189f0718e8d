"""Rules of the reverse pass beside PyTorch's autograd, over attributes that are drawn at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from .reversing import adjoint, differentiate, drawn, in_single, run, weighed

torch = pytest.importorskip("torch")
F = torch.nn.functional
FEW = settings(max_examples=25, deadline=None, derandomize=True)


def check(graph: str, function: Callable[..., Any], opset: int = 21, **tensors: Any) -> None:
    """Hold the gradients by all inputs, in float32 by ONNX Runtime, to autograd in float64."""
    proto = in_single(graph, opset, tensors)
    model, feeds = weighed(proto), drawn(proto)
    leaves = [torch.from_numpy(array).double().requires_grad_() for array in feeds.values()]
    stored = [torch.from_numpy(np.asarray(array)) for array in tensors.values()]
    stored = [tensor.double() if tensor.is_floating_point() else tensor for tensor in stored]
    weight = torch.from_numpy(model.graph.initializers["weight0"].const_value.numpy()).double()
    made = function(*leaves, *stored)
    assert made.shape == weight.shape
    expected = torch.autograd.grad((made * weight).sum(), leaves)
    for ours, truth in zip(run(differentiate(model), feeds), expected, strict=True):
        np.testing.assert_allclose(ours, truth.numpy(), rtol=1e-3, atol=1e-4 * max(1.0, float(truth.abs().max())))


def text(values: Any) -> str:
    return f"[{', '.join(map(str, values))}]"


@FEW
@given(st.data())
def test_convolutions(data: st.DataObject) -> None:
    rank = data.draw(st.sampled_from([1, 2, 2, 3]))
    groups = data.draw(st.sampled_from([1, 2, 4]))
    ins, outs = groups * data.draw(st.integers(1, 2)), groups * data.draw(st.integers(1, 2))
    several = st.lists(st.integers(1, 3), min_size=rank, max_size=rank)
    kernel, strides, dilations = data.draw(several), data.draw(several), data.draw(several)
    pads = data.draw(st.lists(st.integers(0, 3), min_size=2 * rank, max_size=2 * rank))
    sizes = data.draw(st.lists(st.integers(3, 8), min_size=rank, max_size=rank))
    made = [
        (sizes[i] + pads[i] + pads[i + rank] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1
        for i in range(rank)
    ]
    assume(min(made) > 0)
    stored = data.draw(st.booleans())
    w = np.random.default_rng(1).standard_normal((outs, ins // groups, *kernel))
    shape = ",".join(map(str, w.shape))
    graph = (
        f"(float[2,{ins},{','.join(map(str, sizes))}] x{'' if stored else f', float[{shape}] w'})"
        f" => (float[2,{outs},{','.join(map(str, made))}] y) {{ y = Conv <group={groups}, strides={text(strides)},"
        f" dilations={text(dilations)}, pads={text(pads)}> (x, w) }}"
    )
    order = [side for i in reversed(range(rank)) for side in (pads[i], pads[i + rank])]
    step = [F.conv1d, F.conv2d, F.conv3d][rank - 1]
    check(
        graph,
        lambda x, w: step(F.pad(x, order), w, None, strides, 0, dilations, groups),
        **({"w": w} if stored else {}),
    )


@FEW
@given(st.data())
def test_transposed_convolutions(data: st.DataObject) -> None:
    groups, several = data.draw(st.sampled_from([1, 2])), st.lists(st.integers(1, 3), min_size=2, max_size=2)
    kernel, strides, dilations = data.draw(several), data.draw(several), data.draw(several)
    pads = [data.draw(st.integers(0, (k - 1) * d)) for k, d in zip(kernel, dilations, strict=True)]
    further = [data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(strides, dilations, strict=True)]
    sizes = data.draw(st.lists(st.integers(2, 5), min_size=2, max_size=2))
    made = [
        (sizes[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 + further[i] - 2 * pads[i] for i in range(2)
    ]
    assume(min(made) > 0)
    w = np.random.default_rng(1).standard_normal((2 * groups, 3, *kernel))
    graph = (
        f"(float[2,{2 * groups},{sizes[0]},{sizes[1]}] x) => (float[2,{3 * groups},{made[0]},{made[1]}] y)"
        f" {{ y = ConvTranspose <group={groups}, strides={text(strides)}, dilations={text(dilations)},"
        f" pads={text(pads * 2)}, output_padding={text(further)}> (x, w) }}"
    )
    check(graph, lambda x, w: F.conv_transpose2d(x, w, None, strides, pads, further, groups, dilations), w=w)


@pytest.mark.parametrize("how", ['auto_pad="SAME_UPPER"', 'auto_pad="SAME_LOWER"', "output_shape=[9,8]"])
def test_transposed_convolutions_of_a_given_size(how: str) -> None:
    size, made = ("4,4", "9,8") if "shape" in how else ("4,5", "8,10")
    w = np.random.default_rng(1).standard_normal((2, 3, 3, 3))
    graph = f"(float[1,2,{size}] x) => (float[1,3,{made}] y)"
    adjoint(f"{graph} {{ y = ConvTranspose <strides=[2,2], {how}> (x, w) }}", w=w)


def windows(data: st.DataObject) -> tuple[list[int], list[int], list[int], list[int], int, list[int]]:
    kernel = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=2))
    strides = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=2))
    pads = [data.draw(st.integers(0, k // 2)) for k in kernel]
    sizes = data.draw(st.lists(st.integers(4, 9), min_size=2, max_size=2))
    ceil = data.draw(st.integers(0, 1))
    probe = F.avg_pool2d(torch.zeros(1, 1, *sizes), kernel, strides, pads, bool(ceil))
    return kernel, strides, pads, sizes, ceil, list(probe.shape[2:])


@FEW
@given(st.data(), st.integers(0, 1))
def test_average_pools(data: st.DataObject, counted: int) -> None:
    kernel, strides, pads, sizes, ceil, made = windows(data)
    graph = (
        f"(float[2,3,{sizes[0]},{sizes[1]}] x) => (float[2,3,{made[0]},{made[1]}] y) {{ y = AveragePool"
        f" <kernel_shape={text(kernel)}, strides={text(strides)}, pads={text(pads * 2)}, ceil_mode={ceil},"
        f" count_include_pad={counted}> (x) }}"
    )
    adjoint(graph)


@FEW
@given(st.data(), st.sampled_from([11, 13, 18, 21]))
def test_max_pools(data: st.DataObject, opset: int) -> None:
    kernel, strides, pads, sizes, ceil, made = windows(data)
    graph = (
        f"(float[2,3,{sizes[0]},{sizes[1]}] x) => (float[2,3,{made[0]},{made[1]}] y) {{ y = MaxPool"
        f" <kernel_shape={text(kernel)}, strides={text(strides)}, pads={text(pads * 2)}, ceil_mode={ceil}> (x) }}"
    )
    check(graph, lambda x: F.max_pool2d(x, kernel, strides, pads, 1, bool(ceil)), opset)


SHAPES = st.lists(st.integers(1, 3), min_size=0, max_size=4)


@FEW
@given(SHAPES, st.data(), st.sampled_from(["Add", "Sub", "Mul", "Max", "Min"]))
def test_broadcasting(shape: list[int], data: st.DataObject, op: str) -> None:
    other = [data.draw(st.sampled_from([1, size])) for size in shape][data.draw(st.integers(0, len(shape))) :]
    function = {"Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Max": torch.maximum, "Min": torch.minimum}[op]
    a, b = (f"float{text(s)}" if s else "float" for s in (shape, other))
    if data.draw(st.booleans()):
        check(f"({a} x, {b} z) => ({a} y) {{ y = {op}(x, z) }}", function)
    else:
        check(f"({b} x, {a} z) => ({a} y) {{ y = {op}(x, z) }}", function)


@FEW
@given(st.data())
def test_reductions(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), unique=True, min_size=1))
    keep, opset = data.draw(st.integers(0, 1)), data.draw(st.sampled_from([11, 13, 18]))
    op = data.draw(st.sampled_from(["ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp"]))
    function = {
        "ReduceSum": lambda x: x.sum(axes, bool(keep)), "ReduceMean": lambda x: x.mean(axes, bool(keep)),
        "ReduceMax": lambda x: x.amax(axes, bool(keep)), "ReduceL2": lambda x: x.norm(2, axes, bool(keep)),
        "ReduceLogSumExp": lambda x: x.logsumexp(axes, bool(keep)),
    }[op]  # fmt: skip
    made = function(torch.zeros(shape)).shape
    out = f"float{text(made)}" if made else "float"
    if opset >= (13 if op == "ReduceSum" else 18):
        body, tensors = f"{op} <keepdims={keep}> (x, a)", {"a": np.asarray(axes, np.int64)}
    else:
        body, tensors = f"{op} <keepdims={keep}, axes={text(axes)}> (x)", {}
    check(f"(float{text(shape)} x) => ({out} y) {{ y = {body} }}", lambda x, *_: function(x), opset, **tensors)


@FEW
@given(st.data(), st.sampled_from([11, 21]))
def test_slices(data: st.DataObject, opset: int) -> None:
    shape = data.draw(st.lists(st.integers(2, 6), min_size=1, max_size=3))
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), unique=True, min_size=1))
    bound, step = st.integers(-8, 8), st.sampled_from([1, 1, 2, 3, -1, -2])
    starts, ends, steps = ([data.draw(kind) for _ in axes] for kind in (bound, bound, step))
    at = [slice(None)] * len(shape)
    for axis, first, last, by in zip(axes, starts, ends, steps, strict=True):
        n = shape[axis]
        low, high = (first + n if first < 0 else first), (last + n if last < 0 else last)
        low = min(max(low, 0), n - 1 if by < 0 else n)
        high = min(max(high, -1 if by < 0 else 0), n)
        at[axis] = slice(low, None if high < 0 else high, by)
    made = np.zeros(shape)[tuple(at)].shape
    assume(min(made) > 0)
    tensors = {n: np.asarray(v, np.int64) for n, v in zip("abcd", (starts, ends, axes, steps), strict=True)}
    adjoint(f"(float{text(shape)} x) => (float{text(made)} y) {{ y = Slice(x, a, b, c, d) }}", opset, **tensors)


@FEW
@given(st.data(), st.sampled_from(["constant", "reflect", "edge", "wrap"]))
def test_pads(data: st.DataObject, mode: str) -> None:
    shape = data.draw(st.lists(st.integers(3, 5), min_size=1, max_size=3))
    pads = [data.draw(st.integers(-1 if mode == "constant" else 0, 2)) for _ in range(2 * len(shape))]
    made = [size + pads[i] + pads[i + len(shape)] for i, size in enumerate(shape)]
    graph = f'(float{text(shape)} x) => (float{text(made)} y) {{ y = Pad <mode="{mode}"> (x, p) }}'
    adjoint(graph, p=np.asarray(pads, np.int64))


@FEW
@given(st.data())
def test_resizes(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(2, 5), min_size=2, max_size=2))
    mode = data.draw(st.sampled_from(["nearest", "linear", "cubic"]))
    where = data.draw(st.sampled_from(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]))
    how = f'mode="{mode}", coordinate_transformation_mode="{where}"'
    if mode == "nearest":
        how += f', nearest_mode="{data.draw(st.sampled_from(["floor", "ceil", "round_prefer_floor"]))}"'
    if data.draw(st.booleans()):
        made = data.draw(st.lists(st.integers(2, 10), min_size=2, max_size=2))
        given_, tensors = ", , s", {"s": np.asarray([2, 3, *made], np.int64)}
    else:
        times = data.draw(st.lists(st.sampled_from([1.0, 2.0, 3.0, 1.5]), min_size=2, max_size=2))
        made = [int(np.floor(size * by)) for size, by in zip(sizes, times, strict=True)]
        given_, tensors = ", s", {"s": np.asarray([1, 1, *times], np.float32)}
    graph = f"(float[2,3,{sizes[0]},{sizes[1]}] x) => (float[2,3,{made[0]},{made[1]}] y)"
    adjoint(f"{graph} {{ y = Resize <{how}> (x, {given_}) }}", **tensors)


def test_upsample() -> None:
    graph = "(float[1,2,3,4] x) => (float[1,2,6,12] y)"
    adjoint(f'{graph} {{ y = Upsample <mode="nearest"> (x, s) }}', 9, s=np.asarray([1, 1, 2, 3], np.float32))
    adjoint(f'{graph} {{ y = Upsample <mode="linear"> (x, s) }}', 9, s=np.asarray([1, 1, 2, 3], np.float32))


def group_norm(x: Any, scale: Any, bias: Any) -> Any:
    return F.group_norm(x, 2, scale, bias)


def moments(x: Any) -> Any:
    return (x - x.mean((0, 2), True)) / x.std((0, 2), unbiased=False, keepdim=True)


OTHERS: list[tuple[str, int, Callable[..., Any], dict[str, Any]]] = [
    ("(float[2,4,3] x) => (float[2,4,3] y) { y = GroupNormalization <num_groups=2> (x, s, b) }", 21, group_norm,
     {"s": np.asarray([0.5, 1.0, 2.0, 3.0]), "b": np.ones(4)}),
    ("(float[2,4,3] x) => (float[2,4,3] y) { y = GroupNormalization <num_groups=2> (x, s, b) }", 18,
     lambda x, s, b: F.group_norm(x, 2, s.repeat_interleave(2), b.repeat_interleave(2)),
     {"s": np.asarray([0.5, 2.0]), "b": np.ones(2)}),
    ("(float[2,3,4] x) => (float[2,3,4] y) { y = MeanVarianceNormalization <axes=[0,2]> (x) }", 13, moments, {}),
    ("(float[2,6,3,2] x) => (float[2,6,3,2] y) { y = LRN <size=5, alpha=0.5, beta=0.6, bias=2.0> (x) }", 21,
     lambda x: F.local_response_norm(x, 5, 0.5, 0.6, 2.0), {}),
    ("(float[3,4] x) => (float[3,4] y) { y = Shrink <lambd=0.3, bias=0.3> (x) }", 21,
     lambda x: F.softshrink(x, 0.3), {}),
    ("(float[3,4] x) => (float[3,4] y) { y = Gelu(x) }", 21, F.gelu, {}),
    ("(float[3,4] x) => (float[3,4] y) { y = LpNormalization <p=1, axis=1> (x) }", 21,
     lambda x: F.normalize(x, 1, 1), {}),
    ("(float[3,4] x) => (float[3,4] y) { y = Softmax <axis=0> (x) }", 11,
     lambda x: torch.softmax(x.flatten(), 0).view(3, 4),
     {}),
    ("(float[3,4] x) => (float[3,4] y) { y = Clip <min=-0.5, max=0.5> (x) }", 10, lambda x: x.clamp(-0.5, 0.5), {}),
    ("(float[3,4] x) => (float[2,2] y) { y = Slice <axes=[0,1], starts=[1,-3], ends=[3,-1]> (x) }", 9,
     lambda x: x[1:3, -3:-1], {}),
    ("(float[3,4] x) => (float[4,5] y) { y = Pad <pads=[1,0,0,1]> (x) }", 9, lambda x: F.pad(x, [0, 1, 1, 0]), {}),
    ("(float[1,1,6,6] x) => (float[1,1,3,3] y) { y = MaxPool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,0,0]> (x) }",
     9,
     lambda x: F.max_pool2d(F.pad(x, [1, 0, 1, 0], value=-torch.inf), 3, 2), {}),
]  # fmt: skip


@pytest.mark.parametrize(("graph", "opset", "function", "tensors"), OTHERS)
def test_others(graph: str, opset: int, function: Callable[..., Any], tensors: dict[str, Any]) -> None:
    check(graph, function, opset, **tensors)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_bidirectional_cells(kind: str) -> None:
    gates = {"LSTM": 4, "GRU": 3}[kind]
    module = getattr(torch.nn, kind)(4, 3, bidirectional=True).double()
    order = {"LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2]}[kind]  # of PyTorch's gates as ONNX has them

    def stacked(name: str) -> np.ndarray:
        parts = [getattr(module, name + end).detach().numpy() for end in ("", "_reverse")]
        return np.stack([np.concatenate([np.split(part, gates)[gate] for gate in order]) for part in parts])

    bias = np.concatenate([stacked("bias_ih_l0"), stacked("bias_hh_l0")], axis=1)
    more = ", linear_before_reset=1" if kind == "GRU" else ""
    graph = (
        "(float[5,2,4] x) => (float[5,2,2,3] y)"
        f' {{ y = {kind} <hidden_size=3, direction="bidirectional"{more}> (x, w, r, b) }}'
    )
    check(graph, lambda x, *_: module(x)[0].reshape(5, 2, 2, 3).transpose(1, 2), w=stacked("weight_ih_l0"),
          r=stacked("weight_hh_l0"), b=bias)  # fmt: skip
