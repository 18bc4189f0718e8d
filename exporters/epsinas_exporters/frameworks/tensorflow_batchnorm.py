"""Finds batch normalisations that TensorFlow wrote as arithmetic, and makes each the one operation it is again.

`tf.nn.batch_normalization`, which Keras 3 calls, multiplies and adds with stored vectors; TensorFlow's own constant
folding then moves the factor into the convolution in front, and the normalisation and its epsilon are gone. As
FusedBatchNormV3 they survive the conversion.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import tensorflow as tf

NO_SCALE, NO_OFFSET = "/no_scale", "/no_offset"
"""How the constants end that stand for what a normalisation did not learn."""

_ADD = frozenset({"Add", "AddV2"})
_FORMATS = {4: ("NHWC", "NCHW"), 5: ("NDHWC", "NCDHW")}  # rank: channels last, channels first


@dataclass(frozen=True)
class _Vector:
    """A stored vector: its node, its entries, and the axis of the value that they belong to (-1 or 1)."""

    node: str
    size: int
    axis: int


@dataclass(frozen=True)
class _Normalisation:
    """A normalisation that was found: its operands, and the last node of the arithmetic, which gives its result."""

    x: str
    mean: _Vector
    variance: _Vector
    scale: _Vector | None
    offset: _Vector | None
    epsilon: float
    last: tf.compat.v1.NodeDef


def fuse_batch_norms(graph_def: tf.compat.v1.GraphDef) -> int:
    """Replace batch normalisations of float32 values in a frozen graph, in place; return how many there were.

    graph_def: with variables as constants, and with shapes (`as_graph_def(add_shapes=True)`).
    """
    graph = _Graph(graph_def)
    found = [norm for node in graph.nodes.values() if node.op == "Rsqrt" and (norm := graph.normalisation(node))]
    fused = [_fuse(graph, norm) for norm in found]
    return sum(fused)


class _Graph:
    """A GraphDef with its nodes by name, and who reads each of them."""

    def __init__(self, graph_def: tf.compat.v1.GraphDef) -> None:
        self.graph_def = graph_def
        self.nodes = {node.name: node for node in graph_def.node}
        self.users: dict[str, list[tf.compat.v1.NodeDef]] = defaultdict(list)
        for node in graph_def.node:
            for name in node.input:
                if not name.startswith("^"):
                    self.users[_base(name)].append(node)

    def normalisation(self, root: tf.compat.v1.NodeDef) -> _Normalisation | None:
        """Return the normalisation whose deviation `root` takes, where it is one."""
        added = self.nodes.get(_base(root.input[0]))
        if added is None or added.op not in _ADD or root.attr["T"].type != tf.float32.as_datatype_enum:
            return None
        variance, epsilon = self.vector(added.input[0]), self.scalar(added.input[1])
        factor, scale = root, None
        users = self.users[root.name]
        if len(users) == 1 and users[0].op == "Mul":
            factor, scale = users[0], self.vector(_other(users[0], root.name))
        if variance is None or epsilon is None or (factor is not root and scale is None):
            return None
        users = self.users[factor.name]
        if len(users) != 2 or any(user.op != "Mul" for user in users):
            return None
        for scaled, shifted in (users, users[::-1]):
            shift = self.nodes[_base(_other(shifted, factor.name))]
            mean = self.vector(shift.input[0] if shift.op == "Neg" else shift.name)
            x = _other(scaled, factor.name)
            ends = self.users[scaled.name]
            if mean is None or self.vector(x) is not None or len(ends) != 1 or ends[0].op not in _ADD:
                continue
            negative = self.nodes[_base(_other(ends[0], scaled.name))]
            if shift.op == "Neg":  # -mean * factor, where no offset is learned
                if negative is shifted:
                    return _Normalisation(x, mean, variance, scale, None, epsilon, ends[0])
            elif negative.op == "Sub" and _base(negative.input[1]) == shifted.name:
                offset = self.vector(negative.input[0])
                if offset is not None:
                    return _Normalisation(x, mean, variance, scale, offset, epsilon, ends[0])
        return None

    def vector(self, name: str) -> _Vector | None:
        """Return the stored vector behind a name."""
        node, axis = self.behind_identities(name), -1
        if node.op == "Reshape":  # channels that are not last: [1, C, 1, 1]
            target = self.behind_identities(node.input[1])
            if target.op != "Const":
                return None
            sizes = tf.make_ndarray(target.attr["value"].tensor).tolist()
            if len(sizes) < 3 or sizes[0] != 1 or any(size != 1 for size in sizes[2:]):
                return None
            node, axis = self.behind_identities(node.input[0]), 1
        if node.op != "Const":
            return None
        shape = [dim.size for dim in node.attr["value"].tensor.tensor_shape.dim]
        return _Vector(node.name, shape[0], axis) if len(shape) == 1 else None

    def scalar(self, name: str) -> float | None:
        """Return the stored number behind a name."""
        node = self.behind_identities(name)
        if node.op != "Const" or node.attr["value"].tensor.tensor_shape.dim:
            return None
        return float(tf.make_ndarray(node.attr["value"].tensor))

    def behind_identities(self, name: str) -> tf.compat.v1.NodeDef:
        """Return the node that makes a value, which readings of variables only hand on."""
        node = self.nodes[_base(name)]
        while node.op == "Identity":
            node = self.nodes[_base(node.input[0])]
        return node

    def rank(self, name: str) -> int | None:
        """Return how many axes a value has, where the graph says so."""
        base, _, output = name.partition(":")
        shapes = self.nodes[base].attr["_output_shapes"].list.shape
        index = int(output or 0)
        known = index < len(shapes) and not shapes[index].unknown_rank
        return len(shapes[index].dim) if known else None


def _fuse(graph: _Graph, norm: _Normalisation) -> bool:
    rank = graph.rank(norm.x)
    channels_first = norm.variance.axis == 1
    if rank not in (2, 3, 4, 5) or (channels_first and rank not in _FORMATS):
        return False
    name, x = norm.last.name, norm.x
    widened = list(range(1, 1 + 4 - rank)) if rank < 4 else []
    for step in widened:
        axis = _constant(graph, f"{name}/axis_{step}", tf.constant(1))
        x = _node(graph, "ExpandDims", f"{name}/expanded_{step}", [x, axis], Tdim=tf.int32)
    vectors = {
        "scale": norm.scale.node if norm.scale else _constant(graph, name + NO_SCALE, tf.ones(norm.mean.size)),
        "offset": norm.offset.node if norm.offset else _constant(graph, name + NO_OFFSET, tf.zeros(norm.mean.size)),
    }
    inputs = [x, vectors["scale"], vectors["offset"], norm.mean.node, norm.variance.node]
    last = norm.last
    fused = last if not widened else graph.graph_def.node.add()
    order = _FORMATS[max(rank, 4)][channels_first]
    shapes = last.attr["_output_shapes"]
    fused.CopyFrom(
        tf.compat.v1.NodeDef(name=name if not widened else f"{name}/fused", op="FusedBatchNormV3", input=inputs)
    )
    for key in ("T", "U"):
        fused.attr[key].type = tf.float32.as_datatype_enum
    fused.attr["epsilon"].f = norm.epsilon
    fused.attr["data_format"].s = order.encode()
    fused.attr["is_training"].b = False
    if widened:
        last.CopyFrom(tf.compat.v1.NodeDef(name=name, op="Squeeze", input=[fused.name]))
        last.attr["T"].type = tf.float32.as_datatype_enum
        last.attr["squeeze_dims"].list.i.extend(widened)
        last.attr["_output_shapes"].CopyFrom(shapes)
    return True


def _constant(graph: _Graph, name: str, value: tf.Tensor) -> str:
    node = graph.graph_def.node.add(name=name, op="Const")
    node.attr["dtype"].type = value.dtype.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    return name


def _node(graph: _Graph, op: str, name: str, inputs: list[str], **types: tf.DType) -> str:
    node = graph.graph_def.node.add(name=name, op=op, input=inputs)
    for key, dtype in {"T": tf.float32, **types}.items():
        node.attr[key].type = dtype.as_datatype_enum
    return name


def _other(node: tf.compat.v1.NodeDef, name: str) -> str:
    """Return the operand of a node with two that is not `name`."""
    first, second = node.input[:2]
    return str(second if _base(first) == name else first)


def _base(name: str) -> str:
    return name.lstrip("^").partition(":")[0]
