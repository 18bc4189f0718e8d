"""`export FRAMEWORK` as far as it is the same for all: words that are wrong, frameworks that are missing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from epsinas_exporters.frameworks import KINDS
from epsinas_onnx._util.install import pip_install
from tests.builders import command


def test_every_framework_is_in_the_help() -> None:
    done = command("export", "--help")
    assert [kind for kind in KINDS if kind not in done.out] == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "paddle"])
def test_a_missing_framework_names_its_extra(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = f"epsinas_exporters.frameworks.{KINDS[kind].module}"
    for name in ("torch", "transformers", "keras", "tensorflow", "jax2onnx", "joblib", "sklearn", "skl2onnx"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in [name for name in sys.modules if name.startswith("epsinas_exporters.frameworks.")]:
        monkeypatch.delitem(sys.modules, name)
    done = command("export", kind, "json:loads", "--input", "1,8")
    assert done.code == 2
    assert pip_install(KINDS[kind].extra) in done.err
    assert importlib.util.find_spec(module) is not None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("jax",), "export jax takes one network: package.module:factory"),
        (("keras", "a.keras", "b.keras"), "export keras takes one network: a .keras or .h5 file"),
        (("torch", "a:b", "--input", "1,x"), "--input takes NAME=1,3,224,224 or 1,128:int64, not '1,x'"),
        (("torch", "a:b", "--input", "=1,3"), "--input takes NAME=1,3,224,224"),
        (("torch", "a:b", "--input", "1,0"), "--input takes NAME=1,3,224,224"),
        (("torch", "a:b", "--size", "width=3"), "--size changes a search space or a configuration of transformers"),
        (("transformers", "bert", "--size", "width=x"), "--size takes NAME=NUMBER"),
        (
            ("torch", "a:b", "--random", "3"),
            "--random and --all are for search spaces; export torch writes one network",
        ),
    ],
)
def test_wrong_words_are_one_sentence(words: tuple[str, ...], message: str) -> None:
    done = command("export", *words)
    assert (done.code, message in done.err) == (2, True), done.err
    assert done.err.count("\n") == 1


def test_a_module_that_fails_when_it_is_imported_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = pytest.importorskip("epsinas_exporters.frameworks.common")
    (tmp_path / "failing_nets.py").write_text("raise RuntimeError('no licence\\nno more')\n")
    monkeypatch.chdir(tmp_path)
    for text, message in {
        "failing_nets:made": "failing_nets cannot be imported: no licence$",
        "no_such_nets:made": "No module named 'no_such_nets'; install it, or run where it can be imported",
        "json:lost": "json has no 'lost'",
        "json": "names no network; write package.module:factory",
    }.items():
        with pytest.raises(ValueError, match=message):
            common.find(text)
    assert common.find("json:decoder.JSONDecoder").__name__ == "JSONDecoder"
