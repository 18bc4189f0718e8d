"""No output takes the place of an input, by whatever name or link, and no two outputs are one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from epsinas_onnx.graph.data_files import data_files
from tests.builders import Done, build, command, save

from .writing import DATA, EVALUATE, MODEL, contents, everything, filled

READING = (*EVALUATE, "--scores", "earlier.jsonl", "--join", "other.csv", "--input", "fed.npy")
CHECK = ("check", "models/m.onnx", "--config", "own.toml", "--baseline", "base.json")
WRITERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    **{
        f"score -f {kind}": (
            ("score", MODEL, "--input", "fed.npy", "-f", kind, "-o", "{out}"), (MODEL, DATA, "fed.npy"),
        )
        for kind in ("table", "json", "jsonl", "csv", "markdown")
    },
    "score of images": (("score", MODEL, "--input", "images", "-o", "{out}"), ("images/a.png",)),
    "check": ((*CHECK, "-r", "sarif={out}"), (MODEL, DATA, "own.toml", "base.json", "fed.npy")),
    "baseline": (("baseline", "write", MODEL, "-c", "own.toml", "-b", "{out}"), (MODEL, DATA, "own.toml", "fed.npy")),
    "strip": (("strip", MODEL, "-o", "{out}"), (MODEL, DATA)),
    "fill": (("fill", MODEL, "-o", "{out}"), (MODEL, DATA)),
    "rewrite": (("rewrite", MODEL, "-w", "1", "-o", "{out}"), (MODEL, DATA)),
    "evaluate": ((*READING, "-o", "{out}"), ("table.csv", "other.csv", "earlier.jsonl", "fed.npy")),
    "export": (("export", "torchscript", "net.onnx", "--input", "1,3", "-o", "{out}"), ("net.onnx",)),
}  # fmt: skip
"""A command with every option that names a file to read, and what it reads."""

LINKS: dict[str, Callable[[Path, Path], str]] = {
    "itself": lambda victim, _: str(victim),
    "another way": lambda victim, _: os.path.relpath(victim.parent / ".." / victim.parent.name / victim.name),
    "a link": lambda victim, link: link.symlink_to(victim) or str(link),  # type: ignore[func-returns-value]
    "a hard link": lambda victim, link: link.hardlink_to(victim) or str(link),  # type: ignore[func-returns-value]
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return everything(tmp_path, monkeypatch)


def assert_refused(done: Done, *words: str) -> None:
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done.err
    assert [word for word in words if word not in done.err] == []


@pytest.mark.parametrize("way", LINKS)
@pytest.mark.parametrize(
    ("name", "victim"), [(name, victim) for name, (_, victims) in WRITERS.items() for victim in victims]
)
def test_an_output_that_is_an_input_is_refused(folder: Path, name: str, victim: str, way: str) -> None:
    target = LINKS[way](folder / victim, folder / "link.onnx")
    if name == "export" and not target.endswith(".onnx"):
        pytest.skip("export writes files that end so")
    before = contents(folder)
    assert_refused(
        command(*filled(WRITERS[name][0], target)), Path(target).name, Path(victim).name, "name another file"
    )
    assert contents(folder) == before


@pytest.mark.parametrize("way", ["a link", "a hard link"])
@pytest.mark.parametrize("victim", ["table.csv", "other.csv", "earlier.jsonl", "fed.npy"])
@pytest.mark.parametrize("ending", ["png", "html"])
def test_a_plot_that_is_an_input_is_refused(folder: Path, victim: str, way: str, ending: str) -> None:
    target = LINKS[way](folder / victim, folder / f"plot.{ending}")
    before = contents(folder)
    assert_refused(command(*READING, "--plot", target), target, victim)
    assert contents(folder) == before


def test_the_data_file_that_fill_would_write_is_refused_where_it_is_an_input(folder: Path) -> None:
    Path("models/new.onnx.data").hardlink_to(DATA)
    assert_refused(command("fill", MODEL, "-o", "models/new.onnx"), "models/new.onnx.data", "w.bin")


def test_data_files_are_found_wherever_a_tensor_lies(folder: Path) -> None:
    def tensor(location: str) -> onnx.TensorProto:
        found = onnx.TensorProto(name="t", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
        found.external_data.add(key="location", value=location)
        found.external_data.add(key="length", value="4")
        return found

    long = "folder/" + "x" * 300
    function = '<opset_import: ["": 21], domain: "local"> f (a) => (b) { b = Relu(a) }'
    proto = build("(float[2] x) => (float[2] y) { y = local.f(x) }", functions=function)
    body = onnx.helper.make_graph([], "body", [], [], [tensor("in a body")])
    proto.graph.node[0].attribute.add(name="g", type=onnx.AttributeProto.GRAPH, g=body)
    proto.graph.node[0].attribute.add(name="ts", type=onnx.AttributeProto.TENSORS, tensors=[tensor(long)])
    proto.graph.sparse_initializer.add(values=tensor("values"), indices=tensor("indices"))
    proto.functions[0].node.append(onnx.helper.make_node("Constant", [], ["c"], value=tensor("in a function")))
    path = save(proto, folder / "odd.onnx")
    found = {str(file.relative_to(folder)) for file in data_files(path)}
    assert found == {"in a body", long, "values", "indices", "in a function"}


@pytest.mark.parametrize(
    "args",
    [
        (*CHECK, "-r", "a.json", "-r", "sarif=./a.json"),
        (*CHECK, "-r", "a.json", "-r", "link.json"),
        (*EVALUATE, "-o", "a.png", "--plot", "a.png"),
        (*EVALUATE, "--plot", "new/a.png", "--plot", "new/../new/a.png"),
    ],
)
def test_two_outputs_that_are_one_are_refused(folder: Path, args: tuple[str, ...]) -> None:
    Path("link.json").symlink_to("a.json")
    before = contents(folder)
    assert_refused(command(*args), "too; name another file")
    assert contents(folder) == before


@pytest.mark.parametrize("option", [("score", MODEL, "-o"), (*CHECK, "-r")])
def test_what_has_no_ending_is_text_in_folders_that_are_made(folder: Path, option: tuple[str, ...]) -> None:
    assert command(*option, "no/such/x").code == 0
    assert Path(MODEL).name in Path("no/such/x").read_text()
