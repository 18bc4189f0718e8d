"""NAS-Bench-Macro (Su et al., CVPR 2021): one of three blocks in each of eight layers, and their ONNX graphs."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping

import onnx_ir as ir

from epsinas_exporters.builder import GraphBuilder, SharingBuilder, tensor_input, typed_output
from epsinas_exporters.spaces.base import (
    ArchitectureError,
    Choices,
    Counts,
    Defaults,
    SearchSpace,
    check_sizes,
    sizes_of,
)

STAGES = (2, 3, 3)
"""Layers a stage; the first of each doubles the width and halves height and width of the maps."""
BLOCKS = {"0": None, "1": (3, 3), "2": (5, 6)}
"""Kernel and expansion of each digit's inverted residual block; `0` is the identity."""
STEM, LAST = 32, 1280


def parse(arch: str) -> str:
    """Return the eight digits of an architecture; raises ArchitectureError that names the layer that is wrong."""
    digits = arch.strip()
    if len(digits) != sum(STAGES):
        raise ArchitectureError(f"architecture {arch!r} has {len(digits)} digits; it needs 8, one for each layer")
    for layer, digit in enumerate(digits, start=1):
        if digit not in BLOCKS:
            raise ArchitectureError(
                f"layer {layer} of architecture {arch!r} is {digit!r}; it is 0 (identity), 1 (inverted residual 3x3, "
                f"expansion 3) or 2 (5x5, expansion 6)"
            )
    return digits


def build(arch: str, *, classes: int = 1) -> ir.Model:
    """Return the network of `arch` as an ONNX model, written directly, with no weight bytes and a free batch.

    Input `input`: float32 `[batch, 3, 32, 32]`. Output `output`: float32 `[batch, classes]`.
    Raises ArchitectureError for a bad text, and ValueError when there are no classes.
    """
    digits = parse(arch)
    check_sizes(classes=classes)
    return _build(GraphBuilder("nasbenchmacro"), digits, classes)


def _build(b: GraphBuilder, arch: str, classes: int) -> ir.Model:
    digits = iter(arch)
    image = tensor_input("input", ["batch", 3, 32, 32])
    x = _conv_bn_relu(b, image, "stem", 3, STEM, 3)
    width = STEM
    for stage, layers in enumerate(STAGES):
        for layer in range(layers):
            name, outputs, stride = f"stage{stage}.layer{layer}", width, 1
            if layer == 0:
                outputs, stride = 2 * width, 2
            x = _layer(b, x, next(digits), name, width, outputs, stride)
            width = outputs
    x = _conv_bn_relu(b, x, "head", width, LAST, 1)
    x = b.op("Flatten", [b.op("GlobalAveragePool", [x], "head.pool")], "head.flatten")
    x = b.linear(x, "output", LAST, classes)
    return b.model([image], [typed_output(x, ["batch", classes])], **{"epsinas.arch": arch})


def _conv_bn_relu(
    b: GraphBuilder, x: ir.Value, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> ir.Value:
    x = b.conv(x, f"{name}.conv", inputs, outputs, kernel, stride, groups)
    return b.op("Relu", [b.batch_norm(x, f"{name}.bn", outputs)], f"{name}.relu")


def _layer(b: GraphBuilder, x: ir.Value, digit: str, name: str, inputs: int, outputs: int, stride: int) -> ir.Value:
    block = BLOCKS[digit]
    changes = stride != 1 or inputs != outputs
    if block is None:
        if not changes:
            return x
        return b.batch_norm(b.conv(x, f"{name}.conv", inputs, outputs, 1, stride), f"{name}.bn", outputs)
    kernel, expansion = block
    hidden = inputs * expansion
    y = _conv_bn_relu(b, x, f"{name}.expand", inputs, hidden, 1)
    y = _conv_bn_relu(b, y, f"{name}.depthwise", hidden, hidden, kernel, stride, hidden)
    y = b.batch_norm(b.conv(y, f"{name}.project.conv", hidden, outputs, 1), f"{name}.project.bn", outputs)
    return y if changes else b.op("Add", [y, x], f"{name}.add")


def _normed(inputs: int, outputs: int, kernel: int) -> int:
    """Return the parameters of a convolution without bias and of the normalisation behind it."""
    return inputs * outputs * kernel**2 + 2 * outputs


class NASBenchMacro(SearchSpace):
    """The space of NAS-Bench-Macro; nobody has published constants for it, and these score nearly all networks."""

    name = "nasbenchmacro"
    title = "NAS-Bench-Macro (Su et al., CVPR 2021)"
    size = len(BLOCKS) ** sum(STAGES)
    form = "02012100"
    defaults = Defaults((1e-3, 1.0), "grey", 256)
    sizes = sizes_of(build)

    def parse(self, text: str) -> str:
        """Return the eight digits."""
        return parse(text)

    def enumerate(self) -> Iterator[str]:
        """Yield all 6,561, counting in the base of three."""
        return ("".join(digits) for digits in itertools.product(BLOCKS, repeat=sum(STAGES)))

    def draw(self, rng: random.Random) -> str:
        """Return eight digits drawn one by one."""
        return "".join(rng.choice(list(BLOCKS)) for _ in range(sum(STAGES)))

    def mutate(self, arch: str, rng: random.Random) -> str:
        """Return `arch` with another block in one layer."""
        digits = list(parse(arch))
        layer = rng.randrange(len(digits))
        digits[layer] = rng.choice([digit for digit in BLOCKS if digit != digits[layer]])
        return "".join(digits)

    def decisions(self) -> Mapping[str, Choices]:
        """Return a block for each layer, called `layer1` to `layer8`."""
        return {f"layer{layer}": tuple(BLOCKS) for layer in range(1, sum(STAGES) + 1)}

    def from_choices(self, choices: Mapping[str, str | int]) -> str:
        """Return the digits of a block for each layer."""
        return self.parse("".join(str(choices[name]) for name in self.decisions()))

    def build(self, arch: str, **sizes: int) -> ir.Model:
        """Return the CIFAR network."""
        return build(arch, **sizes)

    def build_live(self, arch: str) -> ir.Model:
        """Return the CIFAR network with its parameters of one shape stored once."""
        return _build(SharingBuilder(self.name), self.parse(arch), 1)

    def family(self, arch: str) -> str:
        """Return the digits stage by stage, without identities behind a stage's first layer: they do nothing."""
        digits = iter(parse(arch))
        stages = ["".join(itertools.islice(digits, layers)) for layers in STAGES]
        return "-".join(stage[0] + stage[1:].replace("0", "") for stage in stages)

    def counts(self, arch: str) -> Counts:
        """Return the sizes of the CIFAR network."""
        digits = iter(parse(arch))
        parameters, nodes, widths, width = _normed(3, STEM, 3), 6, {STEM, LAST}, STEM
        for layers in STAGES:
            for layer in range(layers):
                block, outputs = BLOCKS[next(digits)], 2 * width if layer == 0 else width
                if block is not None:
                    kernel, hidden = block[0], width * block[1]
                    parameters += _normed(width, hidden, 1) + _normed(1, hidden, kernel) + _normed(hidden, outputs, 1)
                    nodes += 6 + 6 + 5 + (layer > 0)
                    widths |= {hidden, outputs}
                elif layer == 0:
                    parameters, nodes, widths = parameters + _normed(width, outputs, 1), nodes + 5, widths | {outputs}
                width = outputs
        parameters += _normed(width, LAST, 1) + LAST + 1
        return Counts(parameters, nodes + 6 + 5 + 2 * len(widths))

    def file_name(self, arch: str) -> str:
        """Return a file name with the digits."""
        return f"nbmacro-{parse(arch)}.onnx"
