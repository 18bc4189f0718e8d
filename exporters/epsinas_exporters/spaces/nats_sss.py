"""The size search space of NATS-Bench (Dong et al., TPAMI 2021): channels of five layers, and their ONNX graphs."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping

import onnx_ir as ir

from epsinas_exporters.builder import GraphBuilder, tensor_input, typed_output
from epsinas_exporters.spaces import nasbench201
from epsinas_exporters.spaces.base import ArchitectureError, Choices, Defaults, SearchSpace, check_sizes, sizes_of

CHANNELS = tuple(range(8, 65, 8))
"""The widths that a layer may have."""
REDUCTIONS = (False, True, False, True, False)
"""Which of the five layers are residual blocks that halve height and width; the others are cells."""
CELL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
"""The cell of all networks, the best of the topology search space."""


def parse(arch: str) -> tuple[int, ...]:
    """Return the five widths of `c1:c2:c3:c4:c5`; raises ArchitectureError that names the layer that is wrong."""
    parts = arch.strip().split(":")
    if len(parts) != len(REDUCTIONS):
        raise ArchitectureError(f"architecture {arch!r} has {len(parts)} widths; it needs 5, joined by ':'")
    for layer, part in enumerate(parts, start=1):
        if not part.isdecimal() or int(part) not in CHANNELS:
            raise ArchitectureError(
                f"layer {layer} of architecture {arch!r} has the width {part!r}; widths are 8 to 64 in steps of 8"
            )
    return tuple(map(int, parts))


def build(arch: str, *, classes: int = 1) -> ir.Model:
    """Return the network of `arch` as an ONNX model, written directly, with no weight bytes and a free batch.

    A 3x3 stem of c1 channels, then cell, residual block, cell, residual block, cell of c1 to c5 channels, batch
    normalisation, ReLU, global mean and a classifier of `classes` outputs. In a cell that is wider or narrower than
    its input, the edges from the input change the width, `skip_connect` by a 1x1 convolution and a normalisation.

    Input `input`: float32 `[batch, 3, 32, 32]`. Output `output`: float32 `[batch, classes]`.
    Raises ArchitectureError for a bad text, and ValueError when there are no classes.
    """
    widths = parse(arch)
    check_sizes(classes=classes)
    b = GraphBuilder("nats-sss")
    cell = nasbench201.parse(CELL)
    image = tensor_input("input", ["batch", 3, 32, 32])
    width = widths[0]
    x = b.batch_norm(b.conv(image, "stem.conv", 3, width, 3), "stem.bn", width)
    for layer, (outputs, reduction) in enumerate(zip(widths, REDUCTIONS, strict=True)):
        if reduction:
            x = nasbench201.residual_block(b, x, f"layer{layer}", width, outputs)
        else:
            x = nasbench201.build_cell(b, x, cell, f"layer{layer}", width, outputs)
        width = outputs
    x = nasbench201.head(b, x, width, classes)
    return b.model([image], [typed_output(x, ["batch", classes])], **{"epsinas.arch": ":".join(map(str, widths))})


class NATSSizes(SearchSpace):
    """The size search space of NATS-Bench; nobody has published constants for it; these score nearly all networks."""

    name = "nats-sss"
    title = "NATS-Bench, size search space (Dong et al., TPAMI 2021)"
    size = len(CHANNELS) ** len(REDUCTIONS)
    form = "8:16:32:48:64"
    defaults = Defaults((1e-3, 1.0), "grey", 256)
    sizes = sizes_of(build)

    def parse(self, text: str) -> str:
        """Return the five widths joined by colons."""
        return ":".join(map(str, parse(text)))

    def enumerate(self) -> Iterator[str]:
        """Yield all 32,768, the last width changing fastest."""
        return (":".join(map(str, widths)) for widths in itertools.product(CHANNELS, repeat=len(REDUCTIONS)))

    def draw(self, rng: random.Random) -> str:
        """Return five widths drawn one by one."""
        return ":".join(str(rng.choice(CHANNELS)) for _ in REDUCTIONS)

    def mutate(self, arch: str, rng: random.Random) -> str:
        """Return `arch` with another width in one layer."""
        widths = list(parse(arch))
        layer = rng.randrange(len(widths))
        widths[layer] = rng.choice([width for width in CHANNELS if width != widths[layer]])
        return ":".join(map(str, widths))

    def decisions(self) -> Mapping[str, Choices]:
        """Return a width for each layer, called `layer1` to `layer5`."""
        return {f"layer{layer}": range(8, 65, 8) for layer in range(1, len(REDUCTIONS) + 1)}

    def from_choices(self, choices: Mapping[str, str | int]) -> str:
        """Return the five widths joined by colons."""
        return self.parse(":".join(str(choices[name]) for name in self.decisions()))

    def build(self, arch: str, **sizes: int) -> ir.Model:
        """Return the CIFAR network."""
        return build(arch, **sizes)

    def file_name(self, arch: str) -> str:
        """Return a file name that shows the widths."""
        return f"nats-sss-{self.parse(arch).replace(':', '-')}.onnx"
