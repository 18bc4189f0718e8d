"""What an architecture around a network decides, as a text and read."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from epsinas_exporters.spaces.base import ArchitectureError, Choices
from epsinas_onnx.search.around.activations import CHOICES
from epsinas_onnx.search.around.template import Template

ORIGINAL = "original"
"""The text of the network as it is in the file."""
KINDS = ("width", "depth", "kernel", "activation")
"""What can be changed, in the order in which a text names it."""
_PART = re.compile(r"(?P<kind>width|depth|kernel|activation):(?P<name>[^=;]+)=(?P<value>[^=;]+)")


STRIDE = 1 / 8
"""By what share of its width in the file a layer becomes wider or narrower with each step."""


@dataclass(frozen=True)
class Limits:
    """What is changed, and how far. kinds: some of `KINDS`.

    narrowest, widest: of a layer, as a share of its width in the file. deepest: blocks in a row, as a multiple of those
    in the file.
    """

    kinds: tuple[str, ...] = KINDS
    narrowest: float = 0.25
    widest: float = 2.0
    deepest: float = 2.0


@dataclass
class Decisions:
    """What differs from the file, by kind and name."""

    width: dict[str, int] = field(default_factory=dict)
    depth: dict[str, int] = field(default_factory=dict)
    kernel: dict[str, int] = field(default_factory=dict)
    activation: dict[str, str] = field(default_factory=dict)

    def of(self, kind: str) -> dict[str, str | int]:
        """Return what is decided of one kind."""
        return getattr(self, kind)  # type: ignore[no-any-return]

    def text(self, template: Template) -> str:
        """Return the architecture in canonical form: in the order of the file, nothing that does not count."""
        parts = []
        for kind in KINDS:
            decided = self.of(kind)
            parts += [f"{kind}:{name}={decided[name]}" for name in named(template, kind) if name in decided]
        return ";".join(parts) or ORIGINAL


def named(template: Template, kind: str) -> Mapping[str, object]:
    """Return the names of what can be changed of one kind, in the order of the file."""
    kinds: dict[str, Mapping[str, object]] = {
        "width": template.widths, "depth": template.depths, "kernel": template.kernels,
        "activation": template.functions,
    }  # fmt: skip
    return kinds[kind]


def offered(template: Template, kind: str, name: str, limits: Limits) -> Choices:
    """Return what one thing is chosen from, what is in the file included: numbers with an order, or names."""
    if kind == "width":
        width = template.widths[name]
        stride = max(width.step, round(width.size * STRIDE / width.step) * width.step)
        narrower = int(width.size * (1 - limits.narrowest)) // stride
        wider = int(width.size * (limits.widest - 1)) // stride
        if width.size - narrower * stride < width.step:
            narrower -= 1
        return range(width.size - narrower * stride, width.size + wider * stride + 1, stride)
    if kind == "depth":
        return range(int(template.depths[name].blocks.count * limits.deepest) + 1)
    if kind == "kernel":
        sizes = template.kernels[name].choices
        return range(sizes[0], sizes[-1] + 1, 2)
    return name, *(one for one in CHOICES if one != name)


def options(template: Template, kind: str, name: str, limits: Limits) -> list[str | int]:
    """Return what may be put in the place of one thing, without what is there."""
    own = here(template, kind, name)
    return [one for one in offered(template, kind, name, limits) if one != own]


def here(template: Template, kind: str, name: str) -> str | int:
    """Return what there is in the file."""
    match kind:
        case "width":
            return template.widths[name].size
        case "depth":
            return template.depths[name].blocks.count
        case "kernel":
            return template.kernels[name].size
    return name


def read(text: str, template: Template, limits: Limits) -> Decisions:
    """Return what a text decides; raises ArchitectureError, which names the part that is wrong."""
    decisions = Decisions()
    if text.strip() == ORIGINAL:
        return decisions
    for part in text.strip().split(";"):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise ArchitectureError(
                f"{part.strip()!r} is no change of a network; write {ORIGINAL}, or changes such as "
                f"width:NAME=32;depth:NAME=1;kernel:NAME=5;activation:relu=gelu"
            )
        kind, name, value = match["kind"], match["name"].strip(), match["value"].strip()
        _check_name(template, kind, name, limits, part.strip())
        if name in decisions.of(kind):
            raise ArchitectureError(f"{part.strip()!r}: {kind}:{name} is decided twice")
        if kind == "activation":
            if value not in (*CHOICES, name):
                raise ArchitectureError(f"{part.strip()!r}: choose one of {', '.join(CHOICES)}")
            if value != name:
                decisions.activation[name] = value
            continue
        if not value.isascii() or not value.isdigit() or len(value) > 9:
            raise ArchitectureError(f"{part.strip()!r}: {value!r} is no whole number")
        _number(decisions, template, kind, name, int(value), limits, part.strip())
    return _relevant(decisions, template)


def _check_name(template: Template, kind: str, name: str, limits: Limits, part: str) -> None:
    if kind not in limits.kinds:
        raise ArchitectureError(f"{part!r}: {kind} is not changed in this search, only {', '.join(limits.kinds)}")
    known = named(template, kind)
    if name not in known:
        close = get_close_matches(name, known, 1)
        have = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}" if known else "there is none"
        raise ArchitectureError(f"{part!r}: nothing called {name!r} has a {kind} that can be changed; {have}")


def _number(
    decisions: Decisions, template: Template, kind: str, name: str, value: int, limits: Limits, part: str
) -> None:
    if kind == "width":
        width = template.widths[name]
        low, high = width.size * limits.narrowest, width.size * limits.widest
        if value == width.size:
            return
        if value % width.step or not low <= value <= high or value < 1:
            raise ArchitectureError(
                f"{part!r}: the width of {name} is {width.size} and can be a multiple of {width.step} from {low:g} to "
                f"{high:g}"
            )
        decisions.width[name] = value
    elif kind == "depth":
        count = template.depths[name].blocks.count
        most = int(count * limits.deepest)
        if not 0 <= value <= most and value != count:
            raise ArchitectureError(f"{part!r}: {name} has {count} blocks and can have 0 to {most}")
        if value != count:
            decisions.depth[name] = value
    else:
        kernel = template.kernels[name]
        if value not in kernel.choices:
            raise ArchitectureError(f"{part!r}: the kernel of {name} can be {', '.join(map(str, kernel.choices))} wide")
        if value != kernel.size:
            decisions.kernel[name] = value


def removed_nodes(decisions: Decisions, template: Template) -> frozenset[str]:
    """Return the nodes that nothing reads any more where blocks are left out, by name."""
    instead: dict[str, str] = {}
    for name, count in decisions.depth.items():
        cuts = template.depths[name].blocks.cuts
        if count < len(cuts) - 1:
            instead[cuts[-1]] = cuts[count]
    return template.unread(instead) if instead else frozenset()


def _relevant(decisions: Decisions, template: Template) -> Decisions:
    """Drop what is decided of nodes that are left out, so that equal networks have equal texts."""
    gone = removed_nodes(decisions, template)
    if gone:
        decisions.depth = {name: n for name, n in decisions.depth.items() if not _left_out(name, decisions, template)}
        functions = template.functions
        widths = {name: template.users.get(template.widths[name].width, frozenset()) for name in decisions.width}
        decisions.width = {name: size for name, size in decisions.width.items() if not widths[name] <= gone}
        kernels = {name: template.kernels[name].node for name in decisions.kernel}
        decisions.kernel = {name: size for name, size in decisions.kernel.items() if kernels[name] not in gone}
        used = {name: any(site.nodes[0] not in gone for site in functions[name].sites) for name in decisions.activation}
        decisions.activation = {name: new for name, new in decisions.activation.items() if used[name]}
    _check_blocks(decisions, template)
    return decisions


def _left_out(name: str, decisions: Decisions, template: Template) -> bool:
    """Whether a row of blocks lies in another one that is left out."""
    others = Decisions(depth={other: count for other, count in decisions.depth.items() if other != name})
    own = {node for block in template.depths[name].blocks.nodes for node in block}
    return own <= removed_nodes(others, template)


def chosen_widths(decisions: Decisions, template: Template) -> Mapping[int, int]:
    """Return the widths that differ from the file, by the number that the equations know them by."""
    found = {}
    for name, size in decisions.width.items():
        width = template.widths[name]
        found[width.width] = size // width.step * width.unit
    return found


def _check_blocks(decisions: Decisions, template: Template) -> None:
    """Raise ArchitectureError where a block that is left out or repeated gives another width than it is given."""
    if not decisions.depth or not template.widths:
        return
    widths = chosen_widths(decisions, template)
    followed = template.followed
    for name, count in decisions.depth.items():
        blocks = template.depths[name].blocks
        joined = (blocks.cuts[min(count, blocks.count - 1)], blocks.cuts[-1])
        before, behind = (
            [followed.equations.measure(form, widths) for form in followed.forms.get(cut, ())] for cut in joined
        )
        if before != behind:
            raise ArchitectureError(
                f"'depth:{name}={count}': the widths before and behind are {_dims(before)} and {_dims(behind)}, and "
                f"must be equal where blocks are left out or repeated"
            )


def _dims(sizes: Collection[object]) -> str:
    return "x".join(map(str, list(sizes)[1:]))
