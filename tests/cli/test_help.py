"""Help and completion: what a reader with 80 columns sees of every command, and what the tab key gives."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from epsinas_onnx.cli.main import app
from tests.builders import command, new_process


def _commands(found: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, found
    for name, one in getattr(found, "commands", {}).items():
        yield from _commands(one, (*words, name))


COMMANDS = dict(_commands(typer.main.get_command(app)))


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_of_80_columns_cuts_and_breaks_no_word(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "TERMINAL_WIDTH"):
        monkeypatch.setenv(name, "80")
    done = command(*words, "--help")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= 80
    cut = re.compile(
        r"…|(?<!\w)\.\.\.|\w\.\.\.$"
    )  # not the dots of what may be repeated, such as [ARGS]... and paths...
    assert not [line for line in lines if cut.search(re.sub(r"[\]}]\.\.\.|^  \w+\.\.\. ", "", line))]
    assert not [line for line in lines if re.search(r"(?:epsinas|--[a-z]+)-$", line)]
    shown = squeezed(done.out)
    for parameter in COMMANDS[words].params:
        for option in (*parameter.opts, *parameter.secondary_opts):
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", done.out), option
        if (said := getattr(parameter, "help", None)) is not None:
            assert squeezed(said).strip() in shown
    for name, one in getattr(COMMANDS[words], "commands", {}).items():
        assert re.search(rf"^  {name} +{re.escape(one.short_help or one.help)}$", done.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("score", "--bogus"), "No such option: --bogus"),
        (("score", "m.onnx", "--norm-stats", "none"), "'none' is not one of 'batch', 'reset', 'stored'"),
        (("score", "m.onnx", "--jobs", "0"), "--jobs takes a whole number from 1, or auto, not '0'"),
        (("inspct",), "No such command 'inspct'"),
        (("score",), "Missing argument"),
    ],
)
def test_a_wrong_call_is_told_in_whole_words(
    args: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("COLUMNS", "TERMINAL_WIDTH"):
        monkeypatch.setenv(name, "80")
    done = command(*args)
    assert (done.code, done.out) == (2, "")
    assert words in done.err


def test_a_wrong_call_of_a_new_process_is_told_in_whole_words() -> None:
    done = new_process("score", "m.onnx", "--jobs", "0", COLUMNS="80")
    assert (done.code, done.out) == (2, "")
    assert "--jobs takes a whole number from 1, or auto, not '0'" in done.err


PROGRAM = Path(sys.executable).with_name("epsinas-onnx")
COMPLETE = """
eval "$SCRIPT"
complete -p epsinas-onnx
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
function=$(complete -p epsinas-onnx | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function epsinas-onnx
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def with_script() -> dict[str, str]:
    """The variables of a shell that finds the program, what it prints to be sourced among them."""
    env = {**os.environ, "PATH": f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"}
    asked = {**env, "_EPSINAS_ONNX_COMPLETE": "source_bash"}
    done = subprocess.run(["epsinas-onnx"], env=asked, capture_output=True, text=True, check=True)
    return {**env, "SCRIPT": done.stdout}


@pytest.mark.skipif(not PROGRAM.exists() or shutil.which("bash") is None, reason="needs the program and bash")
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["ins"], ["inspect"]),
        (["baseline", ""], ["write", "diff"]),
        (["score", "--restore"], ["--restore-batchnorm"]),
        (["score", "--norm-stats", ""], ["batch", "reset", "stored"]),
        (["score", "mod"], [""]),  # nothing of ours, so that bash completes file names, which its default is for
        (["strip", "m.onnx", "-o", "mod"], [""]),
    ],
    ids=str,
)
def test_bash_completes_commands_options_values_and_leaves_files_to_itself(
    with_script: dict[str, str], words: list[str], wanted: list[str]
) -> None:
    done = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", "epsinas-onnx", *words],
        env=with_script, capture_output=True, text=True, check=True,
    )  # fmt: skip
    first, *found = done.stdout.splitlines()
    assert "-o default" in first
    assert found == wanted, done.stderr
