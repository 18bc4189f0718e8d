"""The docstrings of the public interface, and what code and pages say of each other."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import enum
import importlib
import inspect
import pkgutil
import re
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import epsinas_onnx
from epsinas_onnx import errors
from epsinas_onnx.scoring.options import ScoreOptions

ROOT = Path(__file__).parents[2]
DEFINED_ELSEWHERE = ("score", "normalised_dispersion", "fill", "rank", "find_weights")
"""What a paper defines, so that its source has to be named."""
_ENTRY = re.compile(r"(?P<name>\*{0,2}\w+): (?P<text>\S.*)", re.DOTALL)


def public(kind: Any) -> list[Any]:
    found = [getattr(epsinas_onnx, name) for name in epsinas_onnx.__all__]
    return [one for one in found if kind(one)]


def parts(cls: type) -> Iterator[type]:
    """Yield a dataclass and those that its fields hold."""
    yield cls
    for hint in typing.get_type_hints(cls).values():
        for part in (hint, *inner(hint)):
            if dataclasses.is_dataclass(part) and isinstance(part, type):
                yield from parts(part)


def inner(hint: Any) -> Iterator[Any]:
    for part in typing.get_args(hint):
        yield part
        yield from inner(part)


FUNCTIONS = public(inspect.isfunction)
RECORDS = list(
    dict.fromkeys([part for one in public(dataclasses.is_dataclass) for part in parts(one)] + [ScoreOptions])
)
ENUMS = public(lambda one: isinstance(one, type) and issubclass(one, enum.Enum))


def section(of: Any, title: str) -> dict[str, str]:
    """Return the entries of a section of a docstring, and the whole text of one that has none, under no name."""
    text = inspect.getdoc(of) or ""
    found = re.search(rf"^{title}:\n(?P<body>(?:(?: .*)?\n)+)", text + "\n", re.MULTILINE)
    if found is None:
        return {}
    body = textwrap.dedent(found["body"]).strip()
    chunks = re.split(r"\n(?=\S)", body)
    entries = [_ENTRY.fullmatch(chunk) for chunk in chunks]
    return {one["name"]: one["text"] for one in entries if one} if all(entries) else {"": body}


def named(part: Any) -> str:
    return str(part.__name__)


@pytest.mark.parametrize("function", FUNCTIONS, ids=named)
def test_a_function_documents_each_argument_where_it_is(function: Any) -> None:
    entries = section(function, "Args")
    stars = {inspect.Parameter.VAR_KEYWORD: "**", inspect.Parameter.VAR_POSITIONAL: "*"}
    parameters = inspect.signature(function).parameters.values()
    assert list(entries) == [stars.get(one.kind, "") + one.name for one in parameters]
    assert [name for name, text in entries.items() if re.search(r"(those|that|as) of `?\w+`?$|^see ", text)] == []
    for one in parameters:
        if "NDArray" in str(typing.get_type_hints(function).get(one.name)):
            assert re.search(r"shape|\[", entries[one.name]), f"{one.name}: no shape"
            assert "float32" in entries[one.name] or "as many" in entries[one.name], f"{one.name}: no element type"


@pytest.mark.parametrize("function", FUNCTIONS, ids=named)
def test_a_function_that_takes_options_names_them_all(function: Any) -> None:
    for name, text in section(function, "Args").items():
        if name == "**options":
            known = inspect.signature(epsinas_onnx.score).parameters.values()
            keywords = {one.name for one in known if one.kind is inspect.Parameter.KEYWORD_ONLY}
            assert keywords <= set(re.findall(r"`(\w+)`", text))


@pytest.mark.parametrize("function", FUNCTIONS, ids=named)
def test_a_function_says_what_it_returns_and_raises_and_shows_it(function: Any) -> None:
    assert section(function, "Returns")
    raised = section(function, "Raises")
    assert raised
    for name in raised:
        assert hasattr(errors, name) or issubclass(getattr(builtins, name), Exception)
    assert ">>> " in inspect.getdoc(function)
    assert bool(section(function, "Source")) == (function.__name__ in DEFINED_ELSEWHERE)


@pytest.mark.parametrize("record", RECORDS, ids=named)
def test_a_record_documents_each_field(record: Any) -> None:
    assert list(section(record, "Attributes")) == [field.name for field in dataclasses.fields(record)]


@pytest.mark.parametrize("members", ENUMS, ids=named)
def test_an_enumeration_documents_each_member(members: Any) -> None:
    body = ast.parse(textwrap.dedent(inspect.getsource(members))).body[0]
    assert isinstance(body, ast.ClassDef)
    pairs = zip(body.body, body.body[1:], strict=False)
    documented = [one.targets[0].id for one, text in pairs if isinstance(one, ast.Assign)
                  and isinstance(one.targets[0], ast.Name)
                  and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)]  # fmt: skip
    assert documented == [member.name for member in members]


def tree() -> dict[str, tuple[str | None, int | None]]:
    """Return the tree that the errors' module draws: for each class what it stands under, and its exit code."""
    drawn: dict[str, tuple[str | None, int | None]] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"(?P<lead>[│├└─ ]*)(?P<name>[A-Z]\w+)(?: {2,}.*?(?:exit code (?P<code>\d))?)?$", line)
        if found:
            depth = len(found["lead"])
            above = [one for one in above if one[0] < depth]
            drawn[found["name"]] = (above[-1][1] if above else None, found["code"] and int(found["code"]))
            above.append((depth, found["name"]))
    return drawn


def all_below(cls: type) -> Iterator[type]:
    for one in cls.__subclasses__():
        yield one
        yield from all_below(one)


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    for module in pkgutil.walk_packages(epsinas_onnx.__path__, "epsinas_onnx."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    ours = [one for one in all_below(errors.EpsinasError) if one.__module__.startswith("epsinas_onnx.")]
    drawn = tree()
    assert {name: above for name, (above, _) in drawn.items()} == {
        "EpsinasError": None, **{one.__name__: one.__bases__[0].__name__ for one in ours}
    }  # fmt: skip
    for name, (above, code) in drawn.items():
        inherited = code if code is not None or above is None else drawn[above][1]
        assert inherited in (None, getattr(errors, name).exit_code), name


def test_whatever_page_is_cited_is_there() -> None:
    cited = {}
    for folder in ("epsinas_onnx", "exporters", "tests", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for page in re.findall(r"(?<![\w/])docs/[\w-]+\.md\b", path.read_text()):
                cited[page] = path
    assert {page: path for page, path in cited.items() if not (ROOT / page).is_file()} == {}
    assert "docs/roles.md" in cited


def test_the_table_of_roles_is_what_decides_them() -> None:
    from epsinas_onnx.graph.operators import OPERATORS, Part

    columns = ("weight", "bias", "statistics", "embedding")
    expected = {}
    for (domain, name), operator in OPERATORS.items():
        slots: dict[str, list[str]] = {column: [] for column in columns}
        for slot, operand in enumerate(operator.operands):
            what = "weight" if operand.what is Part.PACKED else str(operand.what)
            packed = "*" if operand.what is Part.PACKED else ""
            last = operator.repeats and slot == len(operator.operands) - 1
            if what in slots:
                slots[what].append(f"{slot}{packed}{' and on' if last else ''}")
        if any(slots.values()) and domain in ("", "com.microsoft"):
            expected[domain or "ai.onnx", name] = [", ".join(slots[column]) for column in columns]
    rows = {}
    for line in (ROOT / "docs" / "roles.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]
        if len(cells) == 6 and cells[0] != "domain" and "-" not in cells[0]:
            rows[cells[0], cells[1]] = cells[2:]
    assert rows == expected
