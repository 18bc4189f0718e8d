"""Finds convolutions whose kernel can be of another size while their output keeps its shape."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

SIZES = (3, 5, 7)
"""Kernel sizes that are put in each other's place."""


@dataclass(frozen=True)
class Kernel:
    """A convolution. node: by its name; size: of its kernel along every axis; choices: sizes that it can have.

    axes: how many it slides along. dilations: along each. pads: as the file has them, before and behind, None where
    the operator finds them itself.
    """

    name: str
    node: str
    size: int
    choices: tuple[int, ...]
    axes: int
    dilations: tuple[int, ...]
    pads: tuple[int, ...] | None

    def pads_for(self, size: int) -> list[int] | None:
        """Return the pads with which a kernel of another size gives an output of the same shape; None for none."""
        if self.pads is None:
            return None
        return [pad + (size - self.size) // 2 * self.dilations[i % self.axes] for i, pad in enumerate(self.pads)]


def find_kernels(
    graph: ir.Graph, shapes: Mapping[str, tuple[int, ...]], learned: Container[str], name: Callable[[ir.Node], str]
) -> Iterator[Kernel]:
    """Yield the convolutions whose kernel can be of another size."""
    taken: set[str] = set()
    for node in graph:
        if node.op_type != "Conv" or node.domain != "" or len(node.inputs) < 2 or node.inputs[1] is None:
            continue
        weight = node.inputs[1]
        shape = shapes.get(str(weight.name))
        if shape is None or len(weight.uses()) != 1 or str(weight.name) not in learned or len(shape) < 3:
            continue
        producer = weight.producer()
        if producer is not None and (producer.op_type != "ConstantOfShape" or not _is_listed(producer)):
            continue
        size, axes = shape[2], len(shape) - 2
        if size not in SIZES or set(shape[2:]) != {size}:
            continue
        dilations = tuple(node.attributes.get_ints("dilations", [1] * axes))
        automatic = node.attributes.get_string("auto_pad", "NOTSET")
        pads = tuple(node.attributes.get_ints("pads", [0] * (2 * axes))) if automatic in ("NOTSET", "VALID") else None
        kernel = Kernel("", str(node.name), size, (), axes, dilations, pads)
        choices = tuple(k for k in SIZES if min(kernel.pads_for(k) or [0]) >= 0)
        called, count = name(node), 1
        while called in taken:
            count += 1
            called = f"{name(node)}.{count}"
        taken.add(called)
        if len(choices) > 1:
            yield Kernel(called, str(node.name), size, choices, axes, dilations, pads)


def _is_listed(node: ir.Node) -> bool:
    sizes = node.inputs[0]
    return sizes is not None and sizes.is_initializer()
