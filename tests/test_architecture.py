"""The order of the folders: imports go down the list of docs/architecture.md, and never in a circle."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import epsinas_onnx

PACKAGE = Path(epsinas_onnx.__file__).parent
ORDER = (
    "__main__", "pytest_plugin", "cli", "__init__", "doctor", "report.search_page", "report.search_rounds",
    "report.searches", "search", "evaluation", "report", "ranking", "check", "compare",
    "scoring.api", "constants", "scoring.cluster", "scoring.workers", "scoring.single", "scoring.measured", "store",
    "edit", "proxies", "scoring",
    "proxies.measurement", "evaluate_lumped",
    "lump", "multiply_adds", "runtime", "inputs", "graph.fingerprint", "graph.load", "graph.passes", "graph.analysis",
    "graph", "output", "errors", "_util", "versions",
)  # fmt: skip
TOP = {"__init__.py", "__main__.py", "errors.py", "pytest_plugin.py", "versions.py", "py.typed"}


def _modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


MODULES = _modules()


def _imports(path: Path) -> set[str]:
    """Return the modules of the package that a file imports, wherever in it, for type checkers too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            named = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        else:
            continue
        inside = [name.removeprefix("epsinas_onnx.") for name in named if name.startswith("epsinas_onnx")]
        deepest = [name for name in inside if name in MODULES]
        found.update(deepest if node.__class__ is ast.Import or len(deepest) < 2 else deepest[:-1])
    return found


def _floor(module: str) -> int:
    fitting = [place for place in ORDER if module == place or module.startswith(f"{place}.")]
    return ORDER.index(max(fitting, key=len))


GRAPH = {module: _imports(path) - {module} for module, path in MODULES.items()}


def test_no_import_goes_up() -> None:
    up = [f"{m} -> {t}" for m, targets in GRAPH.items() for t in targets if _floor(t) < _floor(m)]
    assert not up, "\n".join(sorted(up))


def test_no_imports_in_a_circle() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_the_top_holds_only_the_face() -> None:
    assert {path.name for path in PACKAGE.iterdir() if path.is_file()} == TOP
