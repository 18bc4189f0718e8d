"""Data files that tensors name: which are opened, wherever in a model the tensor is and whatever command reads it."""

from __future__ import annotations

import ntpath
import os
import posixpath
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import epsinas_onnx
from epsinas_onnx import ModelError
from epsinas_onnx.check.config import load_config
from epsinas_onnx.check.runner import check_one, task_of
from epsinas_onnx.graph.load import load_model
from epsinas_onnx.graph.references import check_references

from ..builders import build, save
from ..fuzz.harness import watched

ONE = np.asarray([1.0, 2.0, 3.0], np.float32)
REST = "h = MatMul(s, W)  r = Tanh(h)  y = MatMul(r, V)"
WEIGHTS: dict[str, Any] = {"W": (3, 4), "V": (4, 2)}
BODY = """(float[N,3] x, bool c) => (float[N,2] y) {{
    s = If(c) <then_branch = t () => (float[N,3] a) {{ {0} }}, else_branch = e () => (float[N,3] b) {{ {1} }}>  {2}
}}"""


def _plain(inner: str = "s = Mul(x, K)", functions: str = "", **tensors: npt.NDArray[Any]) -> onnx.ModelProto:
    return build(f"(float[N,3] x) => (float[N,2] y) {{ {inner}  {REST} }}", functions=functions, **tensors, **WEIGHTS)


def initializer() -> tuple[onnx.ModelProto, TensorProto]:
    proto = _plain(K=ONE)
    return proto, proto.graph.initializer[0]


def constant() -> tuple[onnx.ModelProto, TensorProto]:
    proto = _plain("K = Constant <value = float[3] {1, 2, 3}> ()  s = Mul(x, K)")
    return proto, proto.graph.node[0].attribute[0].t


def filling() -> tuple[onnx.ModelProto, TensorProto]:
    proto = _plain("K = ConstantOfShape <value = float[1] {2}> (z)  s = Mul(x, K)", z=np.asarray([3]))
    return proto, proto.graph.node[0].attribute[0].t


def body() -> tuple[onnx.ModelProto, TensorProto]:
    proto = build(BODY.format("a = Mul(x, K)", "b = Neg(x)", REST), **WEIGHTS)
    inner = proto.graph.node[0].attribute[0].g
    inner.initializer.append(numpy_helper.from_array(ONE, "K"))
    return proto, inner.initializer[0]


def constant_of_a_body() -> tuple[onnx.ModelProto, TensorProto]:
    first = "K = Constant <value = float[3] {1, 2, 3}> ()  a = Mul(x, K)"
    proto = build(BODY.format(first, "b = Neg(x)", REST), **WEIGHTS)
    return proto, proto.graph.node[0].attribute[0].g.node[0].attribute[0].t


HEAD = '<domain: "local", opset_import: ["" : 21, "local" : 1]>'
SCALED = f"{HEAD} scaled (a) => (b) {{ K = Constant <value = float[3] {{1, 2, 3}}> ()  b = Mul(a, K) }}"
AROUND = f"{HEAD} around (a) => (b) {{ c = Neg(a)  b = local.scaled(c) }}"


def function() -> tuple[onnx.ModelProto, TensorProto]:
    proto = _plain("s = local.scaled(x)", SCALED)
    return proto, proto.functions[0].node[0].attribute[0].t


def function_of_a_function() -> tuple[onnx.ModelProto, TensorProto]:
    proto = _plain("s = local.around(x)", f"{AROUND} {SCALED}")
    return proto, proto.functions[1].node[0].attribute[0].t


def body_of_a_function() -> tuple[onnx.ModelProto, TensorProto]:
    proto, _ = constant_of_a_body()
    branch = proto.graph.node[0]
    branch.output[0] = "t"
    made = proto.functions.add(name="chosen", domain="local", input=["x", "c"], output=["t"], node=[branch])
    made.opset_import.append(helper.make_opsetid("", 21))
    branch.CopyFrom(helper.make_node("chosen", ["x", "c"], ["s"], domain="local"))
    proto.opset_import.append(helper.make_opsetid("local", 1))
    return proto, made.node[0].attribute[0].g.node[0].attribute[0].t


READ: dict[str, Callable[[], tuple[onnx.ModelProto, TensorProto]]] = {
    "initializer": initializer, "Constant": constant, "filling": filling, "body": body,
    "Constant of a body": constant_of_a_body, "function": function, "function of a function": function_of_a_function,
    "body of a function": body_of_a_function,
}  # fmt: skip
"""Models of two layers, the first a constant scale, and the tensor of that; its entries are 1, 2, 3, or all 2."""


def _sparse() -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(
        numpy_helper.from_array(ONE[:2], "S"), numpy_helper.from_array(np.asarray([0, 2]), "i"), [3]
    )


def sparse_values() -> tuple[onnx.ModelProto, TensorProto]:
    proto = _plain("s = Mul(x, S)")
    proto.graph.sparse_initializer.append(_sparse())
    return proto, proto.graph.sparse_initializer[0].values


def sparse_indices() -> tuple[onnx.ModelProto, TensorProto]:
    proto, _ = sparse_values()
    return proto, proto.graph.sparse_initializer[0].indices


def sparse_constant() -> tuple[onnx.ModelProto, TensorProto]:
    proto = _plain("S = Identity(x)  s = Mul(x, S)")
    proto.graph.node[0].CopyFrom(helper.make_node("Constant", [], ["S"], sparse_value=_sparse()))
    return proto, proto.graph.node[0].attribute[0].sparse_tensor.values


def listed() -> tuple[onnx.ModelProto, TensorProto]:
    proto = _plain("S = my.domain.Many(x)  s = Mul(x, S)")
    proto.graph.node[0].attribute.append(helper.make_attribute("held", [numpy_helper.from_array(ONE)]))
    return proto, proto.graph.node[0].attribute[0].tensors[0]


def default_of_a_function() -> tuple[onnx.ModelProto, TensorProto]:
    proto = _plain("s = local.scaled(x)", SCALED)
    proto.functions[0].attribute_proto.append(helper.make_attribute("scale", numpy_helper.from_array(ONE)))
    return proto, proto.functions[0].attribute_proto[0].t


def training() -> tuple[onnx.ModelProto, TensorProto]:
    proto = _plain("s = Neg(x)")
    graph = proto.training_info.add().algorithm
    graph.initializer.append(numpy_helper.from_array(ONE, "K"))
    return proto, graph.initializer[0]


NAMED = {
    **READ, "values": sparse_values, "indices": sparse_indices, "sparse Constant": sparse_constant, "list": listed,
    "default of a function": default_of_a_function, "training": training,
}  # fmt: skip
"""Every place that a tensor can have."""


COMMANDS: dict[str, Callable[[str], object]] = {
    "score": lambda path: epsinas_onnx.score(path, batch=2),
    "score --no-lump": lambda path: epsinas_onnx.score(path, batch=2, lump=False),
    "inspect": epsinas_onnx.inspect,
    "check": lambda path: _checked(path, with_score=False),
    "baseline": lambda path: _checked(path, with_score=True),
    "diff": lambda path: epsinas_onnx.diff(path, path),
    "strip": epsinas_onnx.strip,
    "fill": epsinas_onnx.fill,
    "rewrite": lambda path: epsinas_onnx.rewrite(path, 0.5),
}


def _checked(path: str, with_score: bool) -> object:
    config = Path(path).parent / "epsinas-onnx.toml"
    config.write_text("score = { batch = 2 }\n")
    found = check_one(*task_of(path, load_config(config), None, with_score))
    unreadable = [finding.message for finding in found.findings if finding.rule == "unreadable"]
    if unreadable:
        raise ModelError(f"{path}: {unreadable[0]}")
    return found


def send(tensor: TensorProto, location: str, **where: str) -> None:
    """Take the data out of a tensor, and say that it is elsewhere."""
    for field in ("raw_data", "float_data", "int64_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **where}.items():
        tensor.external_data.add(key=key, value=value)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a model, which is not the current one, with all kinds of things in it and outside."""
    inside = tmp_path / "outside" / "model"
    (inside / "data").mkdir(parents=True)
    for place in (tmp_path / "outside", inside, tmp_path / "current"):
        place.mkdir(exist_ok=True)
        (place / "right.bin").write_bytes(ONE.tobytes())
    (tmp_path / "outside" / "secret.bin").write_bytes(ONE.tobytes())
    (inside / "link.bin").symlink_to("../secret.bin")
    (inside / "short.bin").write_bytes(b"12")
    os.mkfifo(inside / "pipe")
    monkeypatch.chdir(tmp_path / "current")
    return inside


PLACES: dict[str, dict[str, str]] = {
    "climbs": {"location": "../secret.bin"},
    "climbs behind a folder": {"location": "data/../../secret.bin"},
    "absolute": {"location": "ABSOLUTE/secret.bin"},
    "of another system": {"location": "..\\secret.bin"},
    "a device": {"location": "/dev/zero"},
    "a folder": {"location": "data"},
    "the folder": {"location": "."},
    "a pipe": {"location": "pipe"},
    "nothing": {"location": ""},
    "no number": {"location": "right.bin", "offset": "x"},
    "a negative offset": {"location": "right.bin", "offset": "-1"},
    "too far": {"location": "right.bin", "offset": str(2**63)},
    "a negative length": {"location": "right.bin", "length": "-12"},
    "too long": {"location": "right.bin", "length": "9" * 5000},
}
"""Places that are refused whether anything has to be read from there or not."""

UNREADABLE: dict[str, dict[str, str]] = {
    "a link out": {"location": "link.bin"},
    "missing": {"location": "gone.bin"},
    "too short": {"location": "short.bin"},
    "behind the end": {"location": "right.bin", "offset": str(2**63 - 1)},
    "another length": {"location": "right.bin", "length": "8"},
}
"""Places that hold what nobody reads, or cannot be read."""


def assert_refused(folder: Path, path: str, command: str, *words: str) -> None:
    """Assert that a command says so in one sentence, and that nothing outside was opened."""
    with watched(folder.parent) as opened, pytest.raises(ModelError) as caught:
        COMMANDS[command](path)
    text = str(caught.value)
    assert text.removeprefix("neither model can be read: ").startswith(f"{path}: ")
    assert "unexpected" not in text
    assert [word for word in words if word not in text] == []
    assert not {"secret.bin", "right.bin"} & opened.keys()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("where", NAMED)
def test_a_place_that_may_hold_no_data_is_refused_wherever_it_is_named(folder: Path, where: str, place: str) -> None:
    proto, tensor = NAMED[where]()
    named = {key: value.replace("ABSOLUTE", str(folder.parent)) for key, value in PLACES[place].items()}
    send(tensor, **named)
    assert_refused(folder, save(proto, folder / "model.onnx"), "inspect", repr(tensor.name))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("where", ["initializer", "function of a function", "body of a function", "values"])
def test_every_command_refuses_it(folder: Path, where: str, command: str) -> None:
    for location in ("../secret.bin", "pipe"):
        proto, tensor = NAMED[where]()
        send(tensor, location)
        assert_refused(folder, save(proto, folder / "model.onnx"), command, location)


@pytest.mark.parametrize("place", UNREADABLE)
@pytest.mark.parametrize("where", READ)
def test_what_must_be_read_and_cannot_be_is_refused(folder: Path, where: str, place: str) -> None:
    proto, tensor = READ[where]()
    send(tensor, **UNREADABLE[place])
    path = save(proto, folder / "model.onnx")
    for command in ("score", "score --no-lump", "rewrite"):
        assert_refused(folder, path, command, repr(UNREADABLE[place]["location"]), "stays constant")


@pytest.mark.parametrize("where", READ)
def test_what_must_be_read_is_found_beside_the_model_and_nowhere_else(folder: Path, where: str) -> None:
    proto, tensor = READ[where]()
    stored = save(proto, folder / "stored.onnx")
    wanted = {lump: epsinas_onnx.score(stored, batch=4, lump=lump).score for lump in (True, False)}
    other = numpy_helper.to_array(tensor)
    (folder / "right.bin").write_bytes(other.tobytes())
    for elsewhere in (folder.parent, Path.cwd()):
        (elsewhere / "right.bin").write_bytes(other[::-1].tobytes() if len(other) > 1 else (other * -3).tobytes())
    send(tensor, "right.bin")
    path = save(proto, folder / "model.onnx")
    with watched(folder.parent) as above, watched(Path.cwd()) as current:
        found = {lump: epsinas_onnx.score(path, batch=4, lump=lump).score for lump in (True, False)}
    assert found == wanted
    assert None not in wanted.values()
    assert not {"right.bin"} & (above | current).keys()


@pytest.mark.parametrize("where", READ)
@pytest.mark.parametrize("kind", ["bytes", "ModelProto"])
def test_a_model_without_a_folder_has_no_data_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, where: str, kind: str
) -> None:
    monkeypatch.chdir(folder)
    proto, tensor = READ[where]()
    send(tensor, "right.bin")
    with watched(folder) as opened, pytest.raises(ModelError, match="give the model as a path") as caught:
        epsinas_onnx.score(proto if kind == "ModelProto" else proto.SerializeToString(), batch=2)
    assert "'right.bin'" in str(caught.value)
    assert not opened


def test_an_onnx_ir_model_keeps_to_the_folder_that_its_tensors_name(folder: Path) -> None:
    proto, tensor = function()
    send(tensor, "right.bin")
    model = ir.load(save(proto, folder / "model.onnx"))
    with pytest.raises(ModelError, match="give the model as a path"):  # onnx-ir tells no folder of functions
        epsinas_onnx.score(model, batch=2)
    proto, tensor = initializer()
    send(tensor, "right.bin")
    model = ir.load(save(proto, folder / "model.onnx"))
    assert epsinas_onnx.score(model, batch=2).score == epsinas_onnx.score(str(folder / "model.onnx"), batch=2).score
    send(tensor, "../secret.bin")
    model = ir.from_proto(proto)
    ir.external_data.set_base_dir(model.graph, folder)
    with pytest.raises(ModelError, match="outside the model's folder"):
        epsinas_onnx.score(model, batch=2)


@pytest.mark.parametrize("blobs", ["there", "missing"])
@pytest.mark.parametrize("command", COMMANDS)
def test_weights_behind_links_out_of_the_folder_are_neither_refused_nor_read(
    tmp_path: Path, command: str, blobs: str
) -> None:
    """As a cache of Hugging Face keeps them: the model and its data are links into a folder of blobs."""
    stored, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    stored.mkdir()
    snapshot.mkdir(parents=True)
    graph = "h = MatMul(x, W)  m = Mul(h, S)  r = Tanh(m)  q = MatMul(r, V)  y = Add(q, B)"
    proto = build(f"(float[N,8] x) => (float[N,2] y) {{ {graph} }}", W=(8, 8), V=(8, 2), S=(8,), B=(2,))
    for number, tensor in enumerate(proto.graph.initializer):
        send(tensor, "model.onnx_data", offset=str(number * 4096))
    save(proto, stored / "a1")
    if blobs == "there":
        (stored / "b2").write_bytes(np.ones(20_000, np.uint8).tobytes())
    (snapshot / "model.onnx").symlink_to("../../blobs/a1")
    (snapshot / "model.onnx_data").symlink_to("../../blobs/b2")
    with watched(stored) as opened:
        COMMANDS[command](str(snapshot / "model.onnx"))
    assert opened.keys() == {"a1"}


@given(st.text(st.sampled_from("a./\\:\0~"), max_size=12))
def test_no_location_names_a_file_that_is_not_below_the_folder(location: str) -> None:
    proto, tensor = initializer()
    send(tensor, location)
    try:
        check_references(proto, None, "model")
    except ModelError:
        return
    for system in (ntpath, posixpath):
        folder = f"{system.sep}a{system.sep}b"
        reached = system.normpath(system.join(folder, location))
        assert reached == folder or reached.startswith(f"{folder}{system.sep}")


def test_a_location_cannot_pass_for_a_sparse_tensor(folder: Path) -> None:
    proto, _ = sparse_values()
    proto.graph.initializer[0].CopyFrom(TensorProto(name="W", data_type=TensorProto.FLOAT, dims=[3, 4]))
    send(proto.graph.initializer[0], "epsinas.sparse:0")
    loaded = load_model(save(proto, folder / "model.onnx")).model
    with pytest.raises(ModelError, match="is missing"):
        np.asarray(loaded.graph.initializers["W"].const_value)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_model_file_is_a_regular_file(folder: Path, command: str) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(folder)  # a socket's path is short
        listening.bind("socket")
        (folder / "zero.onnx").symlink_to("/dev/zero")
        for name, word in {"pipe": "a pipe", "socket": "a socket", "zero.onnx": "a device", "data": "a folder"}.items():
            with pytest.raises(ModelError, match=word):
                COMMANDS[command](str(folder / name))


def test_a_model_file_of_more_than_a_protobuf_holds_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ModelError, match="no more than 2 GiB"):
        load_model(path)
