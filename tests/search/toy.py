"""A search space made in a program, never installed: six digits, whose sum is what a test knows the best of."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from epsinas_exporters.builder import GraphBuilder, tensor_input, typed_output
from epsinas_exporters.spaces import ArchitectureError, Choices, Defaults, SearchSpace

DIGITS, LENGTH = "0123", 6
BEST = "3" * LENGTH


@dataclass(frozen=True)
class ToyNetwork:
    arch: str

    @property
    def name(self) -> str:
        return self.arch

    def build(self) -> ir.Model:
        return Toy().build(self.arch)


class Toy(SearchSpace):
    name = "toy"
    title = "Six digits"
    size = len(DIGITS) ** LENGTH
    form = "001230"
    defaults = Defaults((1e-2, 1.0), "normal", 8)

    def parse(self, text: str) -> str:
        if len(text) != LENGTH or set(text) - set(DIGITS):
            raise ArchitectureError(f"{text!r} is not six of {DIGITS}")
        return text

    def enumerate(self) -> Iterator[str]:
        return ("".join(digits) for digits in itertools.product(DIGITS, repeat=LENGTH))

    def draw(self, rng: random.Random) -> str:
        return "".join(rng.choice(DIGITS) for _ in range(LENGTH))

    def mutate(self, arch: str, rng: random.Random) -> str:
        place = rng.randrange(LENGTH)
        other = rng.choice([digit for digit in DIGITS if digit != arch[place]])
        return arch[:place] + other + arch[place + 1 :]

    def network(self, arch: str) -> ToyNetwork:
        return ToyNetwork(self.parse(arch))

    def build(self, arch: str, **sizes: int) -> ir.Model:
        """Return a perceptron whose layers have a width for each digit that is not 0; all 0 multiply the input by 0."""
        b = GraphBuilder("toy")
        x = start = tensor_input("input", ["batch", 4])
        inputs = 4
        for layer, digit in enumerate(self.parse(arch)):
            if digit != "0":
                width = 2 * int(digit)
                x = b.op("Sigmoid", [b.linear(x, f"layer{layer}", inputs, width)], f"layer{layer}.sigmoid")
                inputs = width
        if x is start:
            x = b.op("Mul", [x, b.scalar(0.0, "zero")], "nothing")
        return b.model([start], [typed_output(x, ["batch", inputs])])

    def decisions(self) -> Mapping[str, Choices]:
        return {f"digit{place}": tuple(DIGITS) for place in range(LENGTH)}

    def from_choices(self, choices: Mapping[str, str | int]) -> str:
        return self.parse("".join(str(choices[f"digit{place}"]) for place in range(LENGTH)))


class Bare(Toy):
    """The same without a list of decisions."""

    name = "bare"

    def decisions(self) -> None:  # type: ignore[override]
        return None


def total(arch: str) -> float:
    return float(sum(map(int, arch)))


def apart(one: str, other: str) -> int:
    return sum(a != b for a, b in zip(one, other, strict=True))
