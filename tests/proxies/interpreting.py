"""Runs a graph in PyTorch, node by node, so that autograd differentiates the very same network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

Tensor = torch.Tensor
F = torch.nn.functional


def interpret(graph: ir.Graph, given: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Tensor]:
    """Return values by name. given: inputs, or values in the middle, which are then not computed."""
    values: dict[ir.Value, Any] = {}
    found = {str(name): tensor for name, tensor in given.items()}
    for value in graph.initializers.values():
        if value.const_value is not None:
            values[value] = _tensor(value.const_value)
    for value in graph.inputs:
        if str(value.name) in found:
            values[value] = found[str(value.name)]
    _run(graph, values, found)
    by_name = {str(value.name): tensor for value, tensor in values.items()}
    return {name: by_name[name] for name in wanted}


def _run(graph: ir.Graph, values: dict[ir.Value, Any], found: Mapping[str, Any]) -> None:
    for node in graph:
        if all(str(output.name) in found for output in node.outputs):
            values.update((output, found[str(output.name)]) for output in node.outputs)
            continue
        operands = [None if value is None else values[value] for value in node.inputs]
        if node.op_type == "Scan":
            made = _scan(node, operands, values)
        elif node.op_type == "Constant":
            made = _tensor(ir.convenience.get_const_tensor(node.outputs[0]))
        else:
            made = OPERATORS[node.op_type](node, *operands)
        results = made if isinstance(made, tuple) else (made,)
        values.update(zip(node.outputs, results, strict=False))


def _tensor(stored: Any) -> Tensor:
    tensor = torch.from_numpy(np.array(stored.numpy()))
    return tensor.double() if tensor.is_floating_point() else tensor


def _scan(node: ir.Node, operands: list[Tensor], values: dict[ir.Value, Any]) -> tuple[Tensor, ...]:
    body, count = node.attributes["body"].as_graph(), node.attributes.get_int("num_scan_inputs", 0)
    states, fed = operands[:-count], operands[-count:]
    ways = _ints(node, "scan_input_directions", [0] * count)
    back = _ints(node, "scan_output_directions", [0] * (len(body.outputs) - len(states)))
    assert not any(_ints(node, "scan_input_axes") + _ints(node, "scan_output_axes"))
    rows: list[list[Tensor]] = []
    steps = fed[0].shape[0]
    for step in range(steps):
        inner = dict(values)
        for value in body.initializers.values():
            inner[value] = _tensor(value.const_value)
        turn = [x[steps - 1 - step if way else step] for x, way in zip(fed, ways, strict=True)]
        inner.update(zip(body.inputs, [*states, *turn], strict=True))
        _run(body, inner, {})
        made = [inner[value] for value in body.outputs]
        states = made[: len(states)]
        rows.append(made[len(states) :])
    columns = zip(zip(*rows, strict=True), back, strict=True)
    return (*states, *(torch.stack(column[::-1] if way else column) for column, way in columns))


def _ints(node: ir.Node, name: str, default: list[int] | None = None) -> list[int]:
    return list(node.attributes[name].as_ints()) if name in node.attributes else list(default or [])


def _padded(node: ir.Node, x: Tensor, filling: float = 0.0) -> Tensor:
    assert node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
    rank = x.dim() - 2
    pads = _ints(node, "pads", [0] * (2 * rank))
    order = [side for axis in reversed(range(rank)) for side in (pads[axis], pads[axis + rank])]
    return F.pad(x, order, value=filling)


def _conv(node: ir.Node, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    step = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[x.dim()]
    ones = [1] * (x.dim() - 2)
    return step(_padded(node, x), w, b, _ints(node, "strides", ones), 0, _ints(node, "dilations", ones),
                node.attributes.get_int("group", 1))  # fmt: skip


def _average(node: ir.Node, x: Tensor) -> Tensor:
    kernel, strides = _ints(node, "kernel_shape"), _ints(node, "strides", [1, 1])
    total = F.avg_pool2d(_padded(node, x), kernel, strides)
    if node.attributes.get_int("count_include_pad", 0):
        return total
    return total / F.avg_pool2d(_padded(node, torch.ones_like(x)), kernel, strides)


def _maximum(node: ir.Node, x: Tensor) -> tuple[Tensor, ...]:
    """Return the maxima and their places, counted over the whole tensor without its padding."""
    padded = _padded(node, x, -torch.inf)
    kernel, strides = _ints(node, "kernel_shape"), _ints(node, "strides", [1, 1])
    maxima, places = F.max_pool2d(padded, kernel, strides, return_indices=True)
    n, c, height, width = x.shape
    top, left = _ints(node, "pads", [0] * 4)[:2]
    rows, columns = places // padded.shape[3] - top, places % padded.shape[3] - left
    return maxima, torch.arange(n * c).reshape(n, c, 1, 1) * height * width + rows * width + columns


def _transposed(node: ir.Node, x: Tensor, w: Tensor) -> Tensor:
    ones, rank = [1] * (x.dim() - 2), x.dim() - 2
    step = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}[x.dim()]
    made = step(x, w, None, _ints(node, "strides", ones), 0, _ints(node, "output_padding", [0] * rank),
                node.attributes.get_int("group", 1), _ints(node, "dilations", ones))  # fmt: skip
    pads = _ints(node, "pads", [0] * (2 * rank))
    at = [slice(pads[axis], made.shape[axis + 2] - pads[axis + rank]) for axis in range(rank)]
    return made[(slice(None), slice(None), *at)]


def _pad(node: ir.Node, x: Tensor, pads: Tensor) -> Tensor:
    rank, sizes = x.dim(), pads.tolist()
    return F.pad(x, [side for axis in reversed(range(rank)) for side in (sizes[axis], sizes[axis + rank])])


def _sum(node: ir.Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.sum(_axes(node, axes) or list(range(x.dim())), keepdim=bool(node.attributes.get_int("keepdims", 1)))


def _scattered(node: ir.Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    added = node.attributes.get_string("reduction", "none") == "add"
    return (x.scatter_add if added else x.scatter)(node.attributes.get_int("axis", 0), indices, updates)


def _gemm(node: ir.Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a = a.T if node.attributes.get_int("transA", 0) else a
    b = b.T if node.attributes.get_int("transB", 0) else b
    product = node.attributes.get_float("alpha", 1.0) * (a @ b)
    return product if c is None else product + node.attributes.get_float("beta", 1.0) * c


def _axes(node: ir.Node, given: Tensor | None) -> list[int]:
    return given.reshape(-1).tolist() if given is not None else _ints(node, "axes")


def _mean(node: ir.Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    listed = _axes(node, axes) or list(range(x.dim()))
    return x.mean(listed, keepdim=bool(node.attributes.get_int("keepdims", 1)))


def _reshape(node: ir.Node, x: Tensor, shape: Tensor) -> Tensor:
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(shape.tolist())])


def _slice(node: ir.Node, x: Tensor, starts: Tensor, ends: Tensor, axes: Any = None, steps: Any = None) -> Tensor:
    count = len(starts)
    for index in range(count):
        axis = index if axes is None else int(axes[index])
        places = range(x.shape[axis])[int(starts[index]) : int(ends[index]) : 1 if steps is None else int(steps[index])]
        x = x.index_select(axis, torch.tensor(list(places), dtype=torch.int64))
    return x


def _gather(node: ir.Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = node.attributes.get_int("axis", 0) % x.dim()
    indices = torch.where(indices < 0, indices + x.shape[axis], indices)
    picked = x.index_select(axis, indices.reshape(-1))
    return picked.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


def _layer_norm(node: ir.Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    axis = node.attributes.get_int("axis", -1) % x.dim()
    return F.layer_norm(x, x.shape[axis:], scale, bias, node.attributes.get_float("epsilon", 1e-5))


def _lstm(node: ir.Node, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, *_: Any) -> tuple[Tensor, ...]:
    hidden = r.shape[-1]
    h = c = x.new_zeros(x.shape[1], hidden)
    bias = x.new_zeros(8 * hidden) if b is None else b[0]
    rows = []
    for step in x:
        gates = step @ w[0].T + h @ r[0].T + bias[: 4 * hidden] + bias[4 * hidden :]
        i, o, f, g = gates.chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        rows.append(h)
    return torch.stack(rows)[:, None], h[None], c[None]


def _cast(node: ir.Node, x: Tensor) -> Tensor:
    kind = ir.DataType(node.attributes.get_int("to", 1))
    if kind in (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16):
        return x.double()
    return x.bool() if kind == ir.DataType.BOOL else x.long()


def _filled(node: ir.Node, shape: Tensor) -> Tensor:
    value = node.attributes["value"].as_tensor() if "value" in node.attributes else ir.tensor(np.zeros(1, np.float32))
    return _tensor(value).expand(shape.tolist()).clone()


def _clip(node: ir.Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    return torch.clamp(x, low, high)


def _softmax(node: ir.Node, x: Tensor) -> Tensor:
    return torch.softmax(x, node.attributes.get_int("axis", -1))


OPERATORS: dict[str, Callable[..., Any]] = {
    "Conv": _conv, "AveragePool": _average, "MaxPool": _maximum, "Gemm": _gemm, "ReduceMean": _mean,
    "Reshape": _reshape, "Slice": _slice, "Gather": _gather, "LayerNormalization": _layer_norm, "LSTM": _lstm,
    "ConvTranspose": _transposed, "Pad": _pad, "ReduceSum": _sum, "ScatterElements": _scattered,
    "Greater": lambda n, a, b: a > b, "Equal": lambda n, a, b: a == b, "Not": lambda n, a: ~a,
    "Or": lambda n, a, b: a | b, "And": lambda n, a, b: a & b, "Exp": lambda n, x: torch.exp(x),
    "Log": lambda n, x: torch.log(x), "Sign": lambda n, x: torch.sign(x),
    "Cast": _cast, "ConstantOfShape": _filled, "Clip": _clip, "Softmax": _softmax,
    "Relu": lambda n, x: torch.relu(x), "Identity": lambda n, x: x, "Sigmoid": lambda n, x: torch.sigmoid(x),
    "Tanh": lambda n, x: torch.tanh(x), "Sqrt": lambda n, x: torch.sqrt(x), "Neg": lambda n, x: -x,
    "Reciprocal": lambda n, x: 1 / x, "Sin": lambda n, x: torch.sin(x), "Cos": lambda n, x: torch.cos(x),
    "LeakyRelu": lambda n, x: F.leaky_relu(x, n.attributes.get_float("alpha", 0.01)),
    "Add": lambda n, a, b: a + b, "Sub": lambda n, a, b: a - b, "Mul": lambda n, a, b: a * b,
    "Div": lambda n, a, b: a / b, "Pow": lambda n, a, b: a**b, "MatMul": lambda n, a, b: a @ b,
    "Less": lambda n, a, b: a < b, "Where": lambda n, c, a, b: torch.where(c, a, b), "Sum": lambda n, *x: sum(x),
    "Concat": lambda n, *x: torch.cat(x, n.attributes.get_int("axis", 0)),
    "Transpose": lambda n, x: x.permute(_ints(n, "perm", list(range(x.dim()))[::-1])),
    "Flatten": lambda n, x: x.flatten(n.attributes.get_int("axis", 1)),
    "GlobalAveragePool": lambda n, x: x.mean(list(range(2, x.dim())), keepdim=True),
    "Shape": lambda n, x: torch.tensor(
        x.shape[n.attributes.get_int("start", 0) : n.attributes.get_int("end", x.dim())]
    ),
    "Expand": lambda n, x, s: x.expand(torch.broadcast_shapes(x.shape, s.tolist())),
    "Range": lambda n, a, b, c: torch.arange(int(a), int(b), int(c)),
    "Squeeze": lambda n, x, a=None: x.squeeze(tuple(_axes(n, a))),
    "Unsqueeze": lambda n, x, a=None: x[
        tuple(None if i in _axes(n, a) else slice(None) for i in range(x.dim() + len(_axes(n, a))))
    ],
}  # fmt: skip
