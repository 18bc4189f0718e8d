"""Aligns the nodes of two graphs, and says of each that changed what changed, in the names of both files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from epsinas_onnx.graph.analysis.roles import Role
from epsinas_onnx.graph.fingerprint import CanonicalGraph, Line, Operand

_MOST_COMPARED = 1_000_000
"""Pairs of lines from which on those that occur often do not anchor the alignment, which is quicker and coarser."""


@dataclass(frozen=True)
class NodeText:
    """A node of one of the models.

    Attributes:
        name: in its file.
        operator: its operator.
        text: stored operands and attributes, for a person.
    """

    name: str
    operator: str
    text: str


@dataclass(frozen=True)
class ChangedNode:
    """A node that both models have, and that is not the same.

    Attributes:
        before: in the first model.
        after: in the second.
        changes: what is different, one part of a sentence each.
    """

    before: NodeText
    after: NodeText
    changes: tuple[str, ...]


@dataclass(frozen=True)
class ChangedRole:
    """A stored operand that has another role in the second model.

    Attributes:
        before: the name of the node in the first model.
        after: its name in the second.
        slot: which input of the node it is.
        roles: in the first model, and in the second.
    """

    before: str
    after: str
    slot: int
    roles: tuple[str, str]


@dataclass(frozen=True)
class Alignment:
    """What became of the nodes, in graph order.

    Attributes:
        removed: nodes of the first model that the second has not.
        added: nodes of the second that the first has not.
        changed: nodes that both have, and that are not the same.
        roles: stored operands with another role.
        outputs: outputs that are another value or hold another type, a line each.
    """

    removed: tuple[NodeText, ...]
    added: tuple[NodeText, ...]
    changed: tuple[ChangedNode, ...]
    roles: tuple[ChangedRole, ...]
    outputs: tuple[str, ...]


class Aligned:
    """Two graphs, and which line of the first is which of the second.

    Lines that agree in operator, attributes and stored operands are matched in order, and what is left by name. Where
    two lines of one operator stand in the same place, they are one node that changed.
    """

    def __init__(self, before: CanonicalGraph, after: CanonicalGraph) -> None:
        self.before, self.after = before, after
        self.is_same = before.fingerprint == after.fingerprint
        self.match: dict[int, int] = dict(enumerate(range(len(after.lines)))) if self.is_same else {}
        if not self.is_same:
            self._match()
        self.back = {other: index for index, other in self.match.items()}
        self.users = (_first_users(before), _first_users(after))

    def _match(self) -> None:
        ours, theirs = ([line.kind for line in graph.lines] for graph in (self.before, self.after))
        rest: list[tuple[range, range]] = []
        for tag, a, b, c, d in _opcodes(ours, theirs):
            if tag == "equal":
                self.match |= dict(zip(range(a, b), range(c, d), strict=True))
            else:
                rest.append((range(a, b), range(c, d)))
        lost = [index for block, _ in rest for index in block]
        new = [index for _, block in rest for index in block]
        # Swapped branches stand in another order; their names tell that they are the same.
        self._pair(lost, new, lambda line: (line.node, line.kind))
        for one, other in rest:
            self._pair(one, other, lambda line: (line.node, line.operator, line.place))
            self._pair(one, other, lambda line: (line.operator, line.place))

    def _pair(self, lost: Sequence[int], new: Sequence[int], key: Callable[[Line], object]) -> None:
        taken = set(self.match.values())
        places: dict[object, list[int]] = {}
        for index in reversed([index for index in new if index not in taken]):
            places.setdefault(key(self.after.lines[index]), []).append(index)
        for index in lost:
            waiting = places.get(key(self.before.lines[index])) if index not in self.match else None
            if waiting:
                self.match[index] = waiting.pop()

    def alignment(self) -> Alignment:
        """Return what changed from one graph to the other; nothing did where the fingerprints are equal."""
        if self.is_same:
            return Alignment((), (), (), (), ())
        removed = [described(line) for i, line in enumerate(self.before.lines) if i not in self.match]
        added = [described(line) for i, line in enumerate(self.after.lines) if i not in self.back]
        changed: list[ChangedNode] = []
        roles: list[ChangedRole] = []
        for index, other in sorted(self.match.items()):
            ours, theirs = self.before.lines[index], self.after.lines[other]
            changes = list(self.changes(index, other))
            if changes:
                changed.append(ChangedNode(described(ours), described(theirs), tuple(changes)))
            roles += changed_roles(ours, theirs)
        return Alignment(tuple(removed), tuple(added), tuple(changed), tuple(roles), tuple(self._outputs()))

    def _outputs(self) -> Iterator[str]:
        pairs = zip(self.before.results, self.after.results, self.before.outputs, self.after.outputs, strict=False)
        for index, (ours, theirs, before, after) in enumerate(pairs):
            if before != after:
                yield f"output {index}: {before} -> {after}"
            if change := self._moved(ours, theirs):
                yield f"output {index}: {change}"
        few, many = len(self.before.outputs), len(self.after.outputs)
        if few != many:
            yield f"number of outputs: {few} -> {many}"

    def changes(self, index: int, other: int) -> Iterator[str]:
        """Yield what is different in two lines that are one node."""
        ours, theirs = self.before.lines[index], self.after.lines[other]
        yield from _attributes(dict(ours.attributes), dict(theirs.attributes))
        both = (("input", ours.operands, theirs.operands), ("result", ours.results, theirs.results))
        for what, before, after in both:
            for slot in range(max(len(before), len(after))):
                one, two = (line[slot] if slot < len(line) else Operand("", "-", "") for line in (before, after))
                if one.kind != two.kind:
                    yield f"{what} {slot}: {_kind(one, self.before)} -> {_kind(two, self.after)}"
                elif change := self._moved(one, two) or self._shared(one, two, index, other):
                    yield f"{what} {slot}: {change}"
        if ours.outputs != theirs.outputs:
            yield f"number of outputs: {ours.outputs} -> {theirs.outputs}"

    def _moved(self, one: Operand, two: Operand) -> str | None:
        """Return how another value is read, None where it is the same, or where a node came or went in between."""
        ours, theirs = maker(one), maker(two)
        gone, new = ours is not None and ours not in self.match, theirs is not None and theirs not in self.back
        if one.what or two.what or gone or new:
            return None
        if ours is None or theirs is None:
            same = ours is theirs and _position(one) == _position(two)
        else:
            same = self.match[ours] == theirs and _position(one) == _position(two)
        return None if same else f"{self._name(one, self.before)} -> {self._name(two, self.after)}"

    def _shared(self, one: Operand, two: Operand, index: int, other: int) -> str | None:
        """Return how a stored tensor is shared with other nodes than before, None where it is not."""
        ours, theirs = self.users[0].get(one.source), self.users[1].get(two.source)
        if ours is None or theirs is None or ours not in self.match or self.match[ours] == theirs:
            return None
        before = "its own tensor" if ours == index else f"the tensor of {self.before.lines[ours].node!r}"
        after = "its own" if theirs == other else f"that of {self.after.lines[theirs].node!r}"
        return f"{before} -> {after}"

    def _name(self, operand: Operand, graph: CanonicalGraph) -> str:
        made_by = maker(operand)
        if made_by is None:
            return f"input {operand.source.removeprefix('in')}" if operand.source else "none"
        output = _position(operand)
        return f"{graph.lines[made_by].node!r}" + (f" output {output}" if output else "")


def _opcodes(ours: Sequence[str], theirs: Sequence[str]) -> Iterator[tuple[str, int, int, int, int]]:
    """Yield what SequenceMatcher gives, common beginnings and ends taken off first."""
    shorter = min(len(ours), len(theirs))
    head = next((i for i in range(shorter) if ours[i] != theirs[i]), shorter)
    tail = next((i for i in range(shorter - head) if ours[-1 - i] != theirs[-1 - i]), shorter - head)
    a, b = ours[head : len(ours) - tail], theirs[head : len(theirs) - tail]
    yield "equal", 0, head, 0, head
    matcher = SequenceMatcher(None, a, b, autojunk=len(a) * len(b) > _MOST_COMPARED)
    for tag, i, j, k, m in matcher.get_opcodes():
        yield tag, i + head, j + head, k + head, m + head
    yield "equal", len(ours) - tail, len(ours), len(theirs) - tail, len(theirs)


def _first_users(graph: CanonicalGraph) -> dict[str, int]:
    """Return, by the source of each stored table, the line that reads it first."""
    users: dict[str, int] = {}
    for index, line in enumerate(graph.lines):
        for operand in line.operands:
            if operand.source.startswith("#"):
                users.setdefault(operand.source, index)
    return users


def maker(operand: Operand) -> int | None:
    """Return the line that computes an operand, None for what no node computes."""
    return int(operand.source[1:].partition(".")[0]) if operand.source.startswith("%") else None


def _position(operand: Operand) -> str:
    """Return which input, or which output of its node, an operand is; the numbers of nodes and bodies are not it."""
    return operand.source if operand.source.startswith("in") else operand.source.partition(".")[2]


def _attributes(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield f"{name} {before.get(name, 'default')} -> {after.get(name, 'default')}"


def changed_roles(ours: Line, theirs: Line) -> Iterator[ChangedRole]:
    """Yield the stored operands of one node that have another role."""
    for slot, (one, two) in enumerate(zip(ours.operands, theirs.operands, strict=False)):
        if (
            one.role != two.role
            and "-" not in (one.what, two.what)
            and (one.what or one.role)
            and (two.what or two.role)
        ):
            yield ChangedRole(ours.node, theirs.node, slot, (one.role or "constant", two.role or "constant"))


def _stored(operand: Operand) -> str:
    """Return a stored operand for a person: floats go without their type, a single number without its shape."""
    text = operand.what.removeprefix("FLOAT").removeprefix("[] ")
    return f"{operand.role} {text}" if operand.role else text


def _kind(operand: Operand, graph: CanonicalGraph) -> str:
    """Return what an operand is, without the name of what computes it: a change of many layers is then one text."""
    made_by = maker(operand)
    if operand.what == "-":
        return "none"
    if operand.what:
        return _stored(operand)
    by = "an input" if made_by is None else f"computed by {graph.lines[made_by].operator}"
    return f"{operand.role} {by}" if operand.role else by


def described(line: Line) -> NodeText:
    """Return a line for a person."""
    stored = [operand for operand in line.operands if operand.what not in ("", "-")]
    telling = [operand for operand in stored if operand.role not in (Role.BIAS, Role.STATISTICS)] or stored[:1]
    parts = [_stored(operand) for operand in telling] + [f"{name} {text}" for name, text in line.attributes]
    return NodeText(line.node, line.place + line.operator, ", ".join(parts))
