"""A network of a user's own as a search space: variants of it with other widths, depths, kernels and activations."""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any, ClassVar, TypeAlias

import numpy.typing as npt
import onnx_ir as ir

from epsinas_exporters.spaces.base import ArchitectureError, Choices, Defaults, NotEnumerable, SearchSpace
from epsinas_onnx.errors import ModelError, UsageError
from epsinas_onnx.graph.load import ModelSource, source_name
from epsinas_onnx.search.around.build import build
from epsinas_onnx.search.around.decisions import KINDS, Decisions, Limits, here, named, offered, options, read
from epsinas_onnx.search.around.template import Template, packed, unpacked
from epsinas_onnx.search.around.trial import Refused, Trial

TRIES = 200
"""How many variants are drawn in a row that are refused before the search for one is given up."""
_KNOWN = 100_000
"""Variants of which is remembered whether they run."""


@dataclass(frozen=True)
class AroundNetwork:
    """One variant of a network, with all that another process takes to build it.

    data: the network without weights, as `packed` gives it; source: what it is called; arch: the variant.
    """

    data: bytes
    source: str
    limits: Limits
    arch: str

    @property
    def name(self) -> str:
        """Return the architecture, by which the result is known."""
        return self.arch

    def build(self) -> ir.Model:
        """Return the variant without weights; raises ArchitectureError."""
        template = unpacked(self.data, self.source)
        return build(template, read(self.arch, template, self.limits))

    def __repr__(self) -> str:
        return f"AroundNetwork({self.source!r}, {self.arch!r})"


class Around(SearchSpace):
    """The variants of one network, all with its inputs and the shapes of its outputs.

    An architecture says what differs from the file: `width:conv1=48;depth:layer1=3;kernel:conv1=5`, or `original`. A
    width is that of the layer that names it, and of all axes that must be as long; a depth is the number of equal
    blocks in a row. What `draw` and `mutate` return was run in ONNX Runtime.
    """

    name: ClassVar[str] = "around"
    title: ClassVar[str] = "variants of a network of one's own"
    size: ClassVar[int | None] = None
    form: ClassVar[str] = "width:conv1=48;depth:layer1=3;kernel:conv1=5;activation:relu=gelu"
    defaults: ClassVar[Defaults] = Defaults((1e-7, 1.0), "auto", 32)

    def __init__(
        self, model: ModelSource, *, kinds: Collection[str] = KINDS, narrowest: float = 0.25, widest: float = 2.0,
        deepest: float = 2.0,
    ) -> None:  # fmt: skip
        """Read a network, which needs no weights.

        Args:
            model: a path, the file's bytes, an `onnx.ModelProto` or an `onnx_ir.Model`; it is not modified.
            kinds: what is changed: some of `width`, `depth`, `kernel` and `activation`.
            narrowest: of a layer, as a share of its width in the file; above 0, at most 1.
            widest: likewise, from 1 to 4.
            deepest: how many equal blocks may be in a row, as a multiple of those in the file; from 1 to 8.

        Raises:
            UsageError: a kind does not exist, a bound is out of its range, or nothing of these kinds can be changed.
            ModelError: the network cannot be read, or does not run in ONNX Runtime itself.
        """
        self._limits = _checked(kinds, narrowest, widest, deepest)
        self._source = source_name(model)
        self._data = packed(model)
        self.stem = PurePath(self._source).stem if isinstance(model, (str, os.PathLike)) else self.name
        self.refused: Counter[str] = Counter()
        self._reasons: dict[str, str] = {}
        self._works: dict[str, str] = {}
        if not any(options(self.template, kind, name, self._limits) for kind, name in self.choices()):
            raise UsageError(
                f"{self._source}: nothing in it can be changed ({', '.join(self._limits.kinds)}): no layer has a width "
                f"of its own, no block begins and ends with one shape, and no kernel or activation is known"
            )

    @property
    def identity(self) -> str:
        """Return what tells this space from others in a storage: a digest of the network, and the bounds."""
        of = self._limits
        bounds = f"{','.join(of.kinds)} {of.narrowest:g} {of.widest:g} {of.deepest:g}"
        return f"around {hashlib.sha256(self._data).hexdigest()[:16]} {bounds}"

    @property
    def template(self) -> Template:
        """Return what can be changed."""
        return unpacked(self._data, self._source)

    @cached_property
    def _trial(self) -> Trial:
        template = self.template
        try:
            return Trial(template.model, [spec.with_batch(1) for spec in template.specs])
        except Refused as error:
            raise ModelError(f"{self._source}: cannot be searched around, as it does not run itself: {error}") from None

    def feeds(self) -> dict[str, npt.NDArray[Any]]:
        """Return the batch on which variants are tried, by the name of the input; raises ModelError."""
        return dict(self._trial.feeds)

    def choices(self) -> list[tuple[str, str]]:
        """Return kind and name of everything that can be changed, in the order of the file."""
        return [(kind, name) for kind in KINDS if kind in self._limits.kinds for name in named(self.template, kind)]

    def summary(self) -> str:
        """Return in a sentence what can be changed."""
        template = self.template
        words = {"width": "width", "depth": "row of blocks", "kernel": "kernel", "activation": "activation"}
        plural = {"row of blocks": "rows of blocks"}
        parts = []
        for kind in KINDS:
            count = len(named(template, kind)) if kind in self._limits.kinds else 0
            if count:
                parts.append(f"{count} {words[kind] if count == 1 else plural.get(words[kind], words[kind] + 's')}")
        return f"{self._source}: {', '.join(parts)} can be changed"

    def parse(self, text: str) -> str:
        """Return the canonical form of an architecture; raises ArchitectureError, which names what is wrong."""
        return read(text, self.template, self._limits).text(self.template)

    def file_name(self, arch: str) -> str:
        """Return a file name that begins with that of the network; raises ArchitectureError."""
        return f"{self.stem}-{hashlib.sha256(self.parse(arch).encode()).hexdigest()[:16]}.onnx"

    def enumerate(self) -> Iterator[str]:
        """Raise NotEnumerable: nobody knows which variants run before they are tried."""
        raise NotEnumerable("the variants of a network have no list; draw some")

    def draw(self, rng: random.Random) -> str:
        """Return a variant in which any number of things differ from the file, and which ONNX Runtime runs.

        Raises UsageError where 200 variants in a row were refused, with the commonest reason.
        """

        def propose() -> Decisions:
            share = rng.random()
            decisions = Decisions()
            for kind, name in self.choices():
                if rng.random() < share:
                    self._decide(decisions, kind, name, rng)
            return decisions

        return self._first_valid(propose)

    def mutate(self, arch: str, rng: random.Random) -> str:
        """Return a variant that differs from `arch` in one thing; raises ArchitectureError and UsageError as `draw`."""
        start = self.parse(arch)
        choices = self.choices()

        def propose() -> Decisions:
            decisions = read(start, self.template, self._limits)
            self._decide(decisions, *rng.choice(choices), rng)
            return decisions

        return self._first_valid(propose, start)

    def decisions(self) -> Mapping[str, Choices]:
        """Return what can be changed, called `width:NAME` and so on, with what is in the file among the choices."""
        return {f"{kind}:{name}": offered(self.template, kind, name, self._limits) for kind, name in self.choices()}

    def from_choices(self, choices: Mapping[str, str | int]) -> str:
        """Return the variant of one choice for each of `decisions`; raises ArchitectureError where it does not run."""
        decisions = Decisions()
        for kind, name in self.choices():
            chosen = choices[f"{kind}:{name}"]
            if chosen != here(self.template, kind, name):
                decisions.of(kind)[name] = chosen
        return self.check(decisions.text(self.template))

    def build(self, arch: str, **sizes: int) -> ir.Model:
        """Return the variant without weights; raises ArchitectureError, and TypeError for any size."""
        if sizes:
            raise TypeError(f"variants of a network have no size {next(iter(sizes))!r}")
        template = self.template
        return build(template, read(arch, template, self._limits))

    def network(self, arch: str) -> AroundNetwork:
        """Return the variant as what `epsinas_onnx.score` takes, in another process too; raises ArchitectureError."""
        return AroundNetwork(self._data, self._source, self._limits, self.parse(arch))

    def check(self, arch: str) -> str:
        """Return the canonical form of a variant that runs; raises ArchitectureError, which says why it does not."""
        canonical = self.parse(arch)
        if canonical not in self._works:
            try:
                self._trial.check(self.build(canonical))
                self._works[canonical] = ""
            except Refused as error:
                self._works[canonical] = str(error)
            if len(self._works) > _KNOWN:
                del self._works[next(iter(self._works))]
        if reason := self._works.get(canonical):
            raise ArchitectureError(f"{canonical}: {reason}")
        return canonical

    def _decide(self, decisions: Decisions, kind: str, name: str, rng: random.Random) -> None:
        """Choose for one thing another value than it has."""
        own = here(self.template, kind, name)
        decided = decisions.of(kind)
        now = decided.get(name, own)
        open_ones = [one for one in offered(self.template, kind, name, self._limits) if one != now]
        if open_ones:
            decided[name] = rng.choice(open_ones)
            if decided[name] == own:
                del decided[name]

    def _first_valid(self, propose: _Propose, other_than: str = "") -> str:
        reasons: Counter[str] = Counter()
        for _ in range(TRIES):
            try:
                text = self.parse(propose().text(self.template))
                if text == other_than:
                    continue
                return self.check(text)
            except ArchitectureError as error:
                said = str(error).split(": ", 1)[-1]
                reason = self._reasons.setdefault(re.sub(r"\d+", "", said), said)
                reasons[reason] += 1
                self.refused[reason] += 1
        why = reasons.most_common(1)[0][0] if reasons else "they were the same network"
        raise UsageError(f"{self._source}: {TRIES} variants in a row were no networks: {why}")


_Propose: TypeAlias = Callable[[], Decisions]


def _checked(kinds: Collection[str], narrowest: float, widest: float, deepest: float) -> Limits:
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise UsageError(f"there is no change {next(iter(unknown), '')!r}; choose some of {', '.join(KINDS)}")
    for bound, low, high, what in (
        (narrowest, 0.01, 1, "narrowest"), (widest, 1, 4, "widest"), (deepest, 1, 8, "deepest"),
    ):  # fmt: skip
        if not low <= bound <= high:
            raise UsageError(f"{what} is {bound:g}; it must be from {low:g} to {high:g}")
    return Limits(tuple(kind for kind in KINDS if kind in kinds), narrowest, widest, deepest)
