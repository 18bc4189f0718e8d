"""What changed between two models, as text for a person and as Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from epsinas_onnx._util.text import LONGEST_SENTENCE, first_names, output_line, shown
from epsinas_onnx.compare.align import Alignment, NodeText
from epsinas_onnx.compare.diff import ComparedModel, Difference
from epsinas_onnx.report.columns import Column, Give, Row, row_lines, wrapped
from epsinas_onnx.report.markup import code, plain

_MOST_SHOWN = 40
_NONE = "none"
_COLUMNS = (
    Column(""), Column("before", Give.MIDDLE, right=True), Column("after", Give.MIDDLE, right=True),
    Column("change"),
)  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """A row of the table. change: empty where nothing changed, or where it is no number."""

    title: str
    before: str
    after: str
    change: str = ""


def to_text(found: Difference, width: int | None) -> str:
    """Return the difference as lines that fit `width` columns, or a pipe (None); short where little changed."""
    lines = [
        *_wrapped(f"{shown(found.before.model)} -> {shown(found.after.model)}", width),
        *_wrapped(heading(found), width),
        "",
    ]
    rows = [Row((fact.title, fact.before, fact.after, fact.change)) for fact in facts_of(found)]
    lines += [line.plain.rstrip() for line in row_lines(_COLUMNS, rows, width)]
    for side, text in remarks_of(found):
        lines += _wrapped(f"{side}: {text}", width)
    for title, entries in sections_of(found):
        lines += ["", f"{title}:"]
        lines += [line for entry in _limited(entries) for line in _wrapped(entry, width)]
    return "\n".join(map(output_line, lines)) + "\n"


def to_markdown(found: Difference) -> str:
    """Return the difference as a heading, a table and lists, to paste into a pull request."""
    lines = [f"### {code(found.before.model)} -> {code(found.after.model)}", "", heading(found), ""]
    lines += ["| | before | after | change |", "| :- | -: | -: | -: |"]
    lines += [f"| {' | '.join(map(plain, (r.title, r.before, r.after, r.change)))} |" for r in facts_of(found)]
    lines += [""] + [f"- {side}: {plain(text)}" for side, text in remarks_of(found)]
    for title, entries in sections_of(found):
        lines += [
            "",
            f"**{title}**",
            "",
            "```diff",
            *(shown(entry, LONGEST_SENTENCE) for entry in _limited(entries)),
            "```",
        ]
    return "\n".join(lines).rstrip() + "\n"


def heading(found: Difference) -> str:
    """Return whether the graphs are the same, with their fingerprints."""
    one, two = found.before.facts, found.after.facts
    if found.same_graph:
        return f"the same graph, fingerprint {one.fingerprint}"
    return f"the graphs differ: fingerprints {one.fingerprint} and {two.fingerprint}"


def facts_of(found: Difference) -> list[Fact]:
    """Return the rows of the table of what can be counted, scores among it."""
    before, after = found.before, found.after
    one, two = before.facts, after.facts
    rows = [
        _number("nodes", before.nodes, after.nodes),
        _number("parameters", one.parameters, two.parameters),
        _number("multiply-adds", one.multiply_adds, two.multiply_adds),
        _number("bytes", one.size, two.size),
        Fact("opset", _opset(before), _opset(after)),
        Fact("producer", before.producer, after.producer),
    ]
    if one.status is not None or two.status is not None:
        rows.append(Fact("status", str(one.status), str(two.status)))
        change = (
            ""
            if one.score is None or two.score is None
            else _change(one.score, two.score, f"{two.score - one.score:+.6f}")
        )
        rows.append(Fact("score", _score(one.score), _score(two.score), change))
    return rows


def _number(title: str, before: int | None, after: int | None) -> Fact:
    one, two = ("unknown" if number is None else f"{number:,}" for number in (before, after))
    if before is None or after is None:
        return Fact(title, one, two)
    return Fact(title, one, two, _change(before, after, f"{after - before:+,}"))


def _change(before: float, after: float, text: str) -> str:
    if before == after:
        return ""
    return f"{text} ({(after - before) / before:+.1%})" if before else text


def _score(score: float | None) -> str:
    return _NONE if score is None else f"{score:.6f}"


def _opset(model: ComparedModel) -> str:
    return ", ".join(f"{domain} {version}" for domain, version in model.opset.items())


def remarks_of(found: Difference) -> Iterator[tuple[str, str]]:
    """Yield why there is no score and what else to know, said once where it is the same for both."""
    sides = [
        ([] if model.reason is None else [model.reason]) + [f"note: {note}" for note in model.notes]
        for model in (found.before, found.after)
    ]
    for text in dict.fromkeys([*sides[0], *sides[1]]):
        where = [name for name, texts in zip(("before", "after"), sides, strict=True) if text in texts]
        yield ("both" if len(where) == 2 else where[0]), text


def sections_of(found: Difference) -> Iterator[tuple[str, list[str]]]:
    """Yield the lists that hold something, each with its title."""
    changed = found.alignment
    counts = [f"{count:+,} {operator}" for operator, count in found.counts().items()]
    nodes = list(_nodes(changed))
    if not (found.same_graph or nodes or found.inputs or changed.outputs):
        nodes = ["the graphs differ in how they were read (quantisation) or in what their bodies take from outside"]
    for title, entries in (
        ("inputs and outputs", [*found.inputs, *changed.outputs]),
        ("operators", [", ".join(counts)] if counts else []),
        ("nodes", nodes),
        ("roles", list(_roles(changed))),
    ):
        if entries:
            yield title, entries


def _nodes(changed: Alignment) -> Iterator[str]:
    """Yield what became of the nodes, equal changes together."""
    for sign, nodes in (("-", changed.removed), ("+", changed.added)):
        grouped: dict[str, list[str]] = {}
        for node in nodes:
            grouped.setdefault(_with_text(node), []).append(repr(node.name))
        for text, names in grouped.items():
            yield f"{sign} {text}{_times(names)}"
    grouped = {}
    for change in changed.changed:
        text = f"{change.before.operator}: {'; '.join(change.changes)}"
        grouped.setdefault(text, []).append(_both(change.before.name, change.after.name))
    for text, names in grouped.items():
        yield f"! {text}{_times(names)}"


def _with_text(node: NodeText) -> str:
    return f"{node.operator} {node.text}".rstrip()


def _times(names: Sequence[str]) -> str:
    shown = first_names(names)
    return f"  ({len(names)} times: {shown})" if len(names) > 1 else f"  ({shown})"


def _both(before: str, after: str) -> str:
    return repr(before) if before == after else f"{before!r} -> {after!r}"


def _roles(changed: Alignment) -> Iterator[str]:
    for role in changed.roles:
        yield f"! {_both(role.before, role.after)} input {role.slot}: {role.roles[0]} -> {role.roles[1]}"


def _limited(entries: Sequence[str]) -> list[str]:
    rest = len(entries) - _MOST_SHOWN
    return [*entries[:_MOST_SHOWN], *([f"... and {rest:,} more; --format json has all"] if rest > 0 else [])]


def _wrapped(text: str, width: int | None) -> list[str]:
    return wrapped(shown(text, LONGEST_SENTENCE), width, later="    ")
