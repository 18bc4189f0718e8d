"""The examples of README and the pages: each is run in the order of its page, and prints what the page says."""

from __future__ import annotations

import contextlib
import doctest
import importlib.util
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from epsinas_onnx.cli.main import app
from tests.documentation.compare import differs
from tests.documentation.pages import PAGES, ROOT, Block, blocks, commands, shown_files, tier
from tests.tiers import tiered

RUN = ("console", "pycon", "python", "run")
"""What is run, unless a comment says otherwise; `sh` is for commands to adapt, whose options alone are looked at."""


def has_examples(block: Block) -> bool:
    return "output of" in block.said or (block.kind in RUN and "not run" not in block.said and "file" not in block.said)


class Folder:
    """Where the examples of one page run: its files, the repository's models, and what Python remembers."""

    def __init__(self, path: Path, page: str) -> None:
        self.path = path
        for name, text in shown_files(page).items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(text, encoding="utf-8")
        self.names: dict[str, Any] = {"__name__": "__main__"}
        shutil.copytree(ROOT / "models", path / "models")
        programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        hidden = ("FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS", "PYTEST_ADDOPTS", "CI", "BUILD_NUMBER")
        self.variables = {key: value for key, value in os.environ.items() if key not in hidden}
        self.variables |= {"PATH": programs, "REPOSITORY": str(ROOT)}

    def shell(self, command: str) -> str:
        """Run a command and return what it printed, on both streams, whatever its exit code."""
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.path, env=self.variables, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.stdout

    def run(self, block: Block) -> list[str]:
        """Run a block and return what is wrong with it."""
        if not has_examples(block):
            return []
        if "output of" in block.said:
            return self.compared(block.said["output of"], self.shell(block.said["output of"]), block.text)
        match block.kind:
            case "run":
                printed = self.shell(f"set -e\n{block.text}")
                return [f"the hidden command printed {printed!r}"] if printed else []
            case "console":
                return [
                    wrong for command, said in commands(block.text)
                    for wrong in self.compared(command, self.shell(command), said)
                ]  # fmt: skip
            case "pycon":
                return self.sessions(block)
        return self.script(block)

    def compared(self, command: str, printed: str, said: str) -> list[str]:
        difference = differs(printed, said)
        return [] if difference is None else [f"$ {command}\n{difference}\n{printed}"]

    def sessions(self, block: Block) -> list[str]:
        test = doctest.DocTestParser().get_doctest(block.text, self.names, "page", None, 0)
        report = io.StringIO()
        with contextlib.chdir(self.path):
            doctest.DocTestRunner().run(test, out=report.write, clear_globs=False)
        self.names |= test.globs
        return [report.getvalue()] if report.getvalue() else []

    def script(self, block: Block) -> list[str]:
        printed = io.StringIO()
        with contextlib.chdir(self.path), contextlib.redirect_stdout(printed):
            exec(compile(block.text, "page", "exec"), self.names)
        return [] if block.printed is None else self.compared("python", printed.getvalue(), block.printed)


@pytest.mark.parametrize(
    "page",
    tiered(
        [page for page in PAGES if any(map(has_examples, blocks(page)))],
        slow=[page for page in PAGES if tier(page) == "slow"],
        exhaustive=[page for page in PAGES if tier(page) == "exhaustive"],
    ),
)
def test_the_examples_of_a_page_print_what_it_says(page: str, tmp_path: Path) -> None:
    folder = Folder(tmp_path, page)
    wrong, left_out = [], set()
    for block in blocks(page):
        needed = block.said.get("needs")
        if needed is not None and importlib.util.find_spec(needed) is None:
            left_out.add(needed)
            continue
        wrong += [f"{page}:{block.line}: {text}" for text in folder.run(block)]
    assert wrong == [], "\n\n".join(wrong)
    if left_out:
        pytest.skip(f"not installed: {', '.join(sorted(left_out))}; the other examples hold")


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_does_not_run_has_its_reason(page: str) -> None:
    for block in blocks(page):
        assert set(block.said) <= {"file", "not run", "needs", "output of", "ci"}, f"line {block.line}"
        assert len(block.said.get("not run", "a reason")) >= 8, f"line {block.line}"


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_have_the_options_that_it_gives_them(page: str) -> None:
    for block in blocks(page):
        for line in re.findall(
            r"(?:^|&& |\$ )(?:\.venv/bin/)?epsinas-onnx (.*)", block.text.replace("\\\n", " "), re.MULTILINE
        ):
            if block.kind in ("sh", "console", "yaml"):
                parse(shlex.split(re.split(r" [|&>]| #", line)[0]))


def parse(words: list[str]) -> None:
    """Let the program's own parser read a command without running it."""
    command = typer.main.get_command(app)
    context = command.make_context("epsinas-onnx", [], resilient_parsing=True)
    while hasattr(command, "commands") and not words[0].startswith("-"):
        command, words = command.commands[words[0]], words[1:]
        context = type(context)(command, info_name="epsinas-onnx", parent=context)
    command.make_parser(context).parse_args(list(words))


@pytest.mark.parametrize(
    ("printed", "said", "equal"),
    [
        ("a.onnx  0.409113  ok  21,994  0.18", "a.onnx 0.409112 ok 21,994 0.31", True),
        ("a.onnx  0.409113  ok  21,994  0.18", "a.onnx 0.411000 ok 21,994 0.18", False),
        ("a.onnx  0.409113  ok  21,994  0.18", "a.onnx 0.409113 ok 21,995 0.18", False),
        ("a.onnx  0.409113  ok", "a.onnx 0.409113 noise", False),
        ("largest is 3.3e-42", "largest is 3.4e-42", True),
        ("largest is 3.3e-42", "largest is 9.3e-42", False),
        ("largest is 3.3e-42", "largest is 3.3e-12", False),
        ("one\ntwo\nthree\nfour", "one\n...\nfour", True),
        ("one\ntwo\nthree\nfour", "...\nthree\n...", True),
        ("one\ntwo\nthree\nfour", "one\n...\nthree", False),
        ("one\ntwo", "one", False),
        ("one", "one\ntwo", False),
        ("2 models; 2.54 s, 0.8 models/s", "2 models; 0.60 s, 4 models/s", True),
        ("2 models; 2.54 s, 0.8 models/s", "3 models; 2.54 s, 0.8 models/s", False),
    ],
)
def test_outputs_are_compared_as_text_and_numbers(printed: str, said: str, equal: bool) -> None:
    assert (differs(printed, said) is None) == equal
