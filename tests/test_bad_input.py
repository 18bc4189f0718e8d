"""Bad files and wrong calls: each ends in one sentence of the right kind, and costs no other file its score."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import epsinas_onnx
from epsinas_onnx import ModelError, OutOfMemory, RunError, ShapeError, UnsupportedError, UsageError

from .builders import build, command, external, new_process, perceptron, save

HUGE = 2_000_000
SCALED = "(float[N,3] x) => (float[N,2] y) { k = Mul(x, K)  h = MatMul(k, W)  r = Tanh(h)  y = MatMul(r, V) }"
FLAT = """(float[N,3] x) => (float[N,2] y) {
    w = Slice(W, low, high)  m = Reshape(w, size)  h = MatMul(x, m)  r = Tanh(h)  y = MatMul(r, V)
}"""
PRINT_PEAK = """
import sys
import epsinas_onnx
status = epsinas_onnx.score(sys.argv[1], batch=4).status
# Not getrusage, whose peak counts what the process that forked this one held.
print(status, next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
SCALE = np.asarray([1, 2, 3], np.float32)
GIT_LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def assert_sentence(text: str) -> None:
    assert text
    assert "\n" not in text
    assert "Traceback" not in text
    assert "unexpected" not in text  # the net under everything that has no sentence of its own
    assert len(text) < 600


# Files that cannot be scored.


def truncated(path: Path) -> None:
    data = perceptron().SerializeToString()
    path.write_bytes(data[: len(data) // 2])


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.onnx", perceptron().SerializeToString())


def climbing(location: str, kept: bool = False) -> Callable[[Path], None]:
    """Return a writer of a model with a tensor in a file that exists, outside the model's folder.

    kept: whether it stays constant, so that it is read, rather than a weight.
    """

    def write(path: Path) -> None:
        outside = path.parent.parent / "outside"
        outside.mkdir()
        (outside / "weight.bin").write_bytes(np.ones((3, 2), np.float32).tobytes())
        (path.parent / "inside").mkdir()
        (path.parent / "link").symlink_to(outside, target_is_directory=True)
        place = location.replace("ABSOLUTE", str(outside.resolve()))
        graph = "k = Mul(x, K)  y = MatMul(k, W)" if kept else "y = MatMul(x, W)"
        proto = build(f"(float[N,3] x) => (float[N,2] y) {{ {graph} }}", **({"W": (3, 2)} if kept else {}))
        save(external(proto, place, **({"K": (3,)} if kept else {"W": (3, 2)})), path)

    return write


def huge_weight(path: Path) -> None:
    graph = f"(float[N,{HUGE}] x) => (float[N,{HUGE}] y) {{ y = MatMul(x, W) }}"
    save(external(build(graph), "missing.bin", W=(HUGE, HUGE)), path)


def huge_formula(path: Path) -> None:
    graph = "(float[N,3] x) => (float[N,3] y) { K = ConstantOfShape(s)  k = Add(x, K)  y = ReduceSum(k, first) }"
    save(build(graph, s=np.asarray([HUGE, HUGE, 1, 3]), first=np.asarray([0, 1])), path)


def huge_formula_as_weight(path: Path) -> None:
    graph = f"(float[N,{HUGE}] x) => (float[N,{HUGE}] y) {{ W = ConstantOfShape(s)  y = MatMul(x, W) }}"
    save(build(graph, s=np.asarray([HUGE, HUGE])), path)


def huge_kept_constant(path: Path) -> None:
    """Write a model that keeps one row of a tensor of three TiB, which lies in a file with holes."""
    rows = 2**38
    graph = "(float[N,3] x) => (float[N,2] y) { k = Slice(K, low, high)  s = Add(x, k)  y = MatMul(s, W) }"
    proto = build(graph, W=(3, 2), low=np.asarray([0]), high=np.asarray([1]))
    save(external(proto, "holes.bin", K=(rows, 3)), path)
    try:
        with (path.parent / "holes.bin").open("wb") as file:
            file.truncate(3 * 4 * rows)
    except OSError:
        pytest.skip("this file system has no room for a file with holes")


def computed_role(path: Path) -> None:
    graph = "(float[N,3] x) => (float[N,2] y) { h = MatMul(x, W)  [told] r = Tanh(h)  y = MatMul(r, V) }"
    proto = build(graph, W=(3, 4), V=(4, 2))
    proto.metadata_props.add(key="epsinas.role:told:0", value="weight")
    save(proto, path)


def bogus_role(path: Path) -> None:
    proto = perceptron()
    proto.metadata_props.add(key="epsinas.role:*", value="bogus")
    save(proto, path)


def bogus_role_of_a_node(path: Path) -> None:
    proto = perceptron()
    proto.graph.node[0].metadata_props.add(key="epsinas.role.1", value="bogus")
    save(proto, path)


def undecodable_name(path: Path) -> None:
    proto = perceptron()
    proto.graph.node[2].input[2] = "ZZZZ"
    path.write_bytes(proto.SerializeToString().replace(b"ZZZZ", b"\x9f\x9f\x9f\x9f"))


def untyped_value(path: Path) -> None:
    proto = perceptron()
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UNDEFINED
    save(proto, path)


def text_of(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


def graph_of(graph: str, opset: int = 21, **tensors: Any) -> Callable[[Path], object]:
    return lambda path: save(build(graph, opset, **tensors), path)


def nothing(path: Path) -> None:
    """Leave the file missing."""


@dataclass(frozen=True)
class Bad:
    """A file that `write` makes, and the kind and the words of what is said of it; `{folder}` is the model's."""

    write: Callable[[Path], object]
    kind: type[ModelError]
    words: tuple[str, ...]


BAD: dict[str, Bad] = {
    "missing": Bad(nothing, ModelError, ("no such file",)),
    "a folder": Bad(Path.mkdir, ModelError, ("is a folder", "name the ONNX files")),
    "empty": Bad(Path.touch, ModelError, ("file is empty", "export")),
    "truncated": Bad(truncated, ModelError, ("cut off", "copy it again")),
    "text": Bad(text_of("# A model card\n\nThis is no model.\n"), ModelError, ("not an ONNX file",)),
    "a pointer of Git LFS": Bad(text_of(GIT_LFS), ModelError, ("not an ONNX file",)),
    "a zip": Bad(zipped, ModelError, ("not an ONNX file",)),
    "climbs by dots": Bad(climbing("../outside/weight.bin"), ModelError, ("'W'", "../outside/weight.bin", "outside")),
    "climbs by dots behind a folder": Bad(
        climbing("inside/../../outside/weight.bin"), ModelError, ("'W'", "outside the model's folder")
    ),
    "climbs by an absolute path": Bad(
        climbing("ABSOLUTE/weight.bin"), ModelError, ("'W'", "outside the model's folder", "beside the model")
    ),
    "climbs through a symlink": Bad(
        climbing("link/weight.bin", kept=True), ModelError, ("'K'", "link/weight.bin", "outside the model's folder")
    ),
    "a kept constant is missing": Bad(
        lambda path: save(external(build(SCALED, W=(3, 4), V=(4, 2)), "gone.bin", K=(3,)), path),
        ModelError, ("'K'", "gone.bin", "beside the model", "--role"),
    ),
    "a kept constant is too short": Bad(
        lambda path: (
            save(external(build(SCALED, W=(3, 4), V=(4, 2)), "short.bin", K=(3,)), path),
            (path.parent / "short.bin").write_bytes(b"1234"),
        ),
        ModelError, ("'K'", "short.bin"),
    ),
    "a huge weight": Bad(huge_weight, OutOfMemory, ("TiB", "largest tensor", "--batch")),
    "a huge formula": Bad(huge_formula, OutOfMemory, ("TiB", "largest tensor", "--shape")),
    "a huge formula as weight": Bad(huge_formula_as_weight, OutOfMemory, ("TiB", "largest tensor")),
    "a huge kept constant": Bad(huge_kept_constant, OutOfMemory, ("TiB", "'K'")),
    "an unknown domain": Bad(
        graph_of("(float[N,3] x) => (float[N,3] y) { [odd] y = my.domain.Warp(x) }"),
        UnsupportedError, ("'odd'", "my.domain::Warp", "custom operators"),
    ),
    "an unknown operator": Bad(
        graph_of("(float[N,3] x) => (float[N,3] y) { [odd] y = Warp(x) }"), RunError, ("Warp", "ONNX Runtime refused")
    ),
    "no float output": Bad(
        graph_of("(float[N,3] x) => (int64[N] y) { s = Tanh(x)  y = ArgMax <axis = 1, keepdims = 0> (s) }"),
        ModelError, ("no float output", "'y'", "--output-name", "'s'"),
    ),
    "opset 6": Bad(
        graph_of("(float[N,3] x) => (float[N,4] y) { h = MatMul(x, W)  y = Warp(h) }", 6, W=(3, 4)),
        UnsupportedError, ("operator set 6", "7", "converter"),
    ),
    "no inputs": Bad(
        graph_of("() => (float[3,3] y) { y = MatMul(W, W) }", W=(3, 3)), ModelError, ("no input", "cannot depend")
    ),
    "strings": Bad(
        graph_of("(string[N] x) => (float[N] y) { y = Cast <to = 1> (x) }"), UnsupportedError, ("'x'", "strings")
    ),
    "a role on a computed operand": Bad(computed_role, ModelError, ("'told'", "Tanh", "computed at run time")),
    "a role of the model that does not exist": Bad(
        bogus_role, ModelError, ("'epsinas.role:*'", "no role 'bogus'", "weight, bias")
    ),
    "a role of a node that does not exist": Bad(
        bogus_role_of_a_node, ModelError, ("'first' (MatMul)", "'epsinas.role.1'", "no role 'bogus'")
    ),
    "sizes that contradict each other": Bad(
        graph_of("(float[N,3] x) => (float[N,2] y) { h = MatMul(x, W)  y = MatMul(h, V) }", W=(3, 4), V=(5, 2)),
        RunError, ("ONNX Runtime",),
    ),
    "an operand that nothing makes": Bad(
        graph_of("(float[N,3] x) => (float[N,4] y) { y = MatMul(x, nobody) }"), ModelError, ("'nobody'",)
    ),
    "an output that nothing makes": Bad(
        graph_of("(float[N,3] x) => (float[N,4] nobody) { y = MatMul(x, W) }", W=(3, 4)), ModelError, ("'nobody'",)
    ),
    "an input without an element type": Bad(untyped_value, ModelError, ("'x'",)),
    "a name that is no text": Bad(undecodable_name, ModelError, ()),
}  # fmt: skip
FREE_WHEN_LUMPED = ("a huge weight", "a huge formula", "a huge formula as weight")
"""Files whose memory goes into equal entries, so that only the plain graph is too large."""
MEMORY = [name for name, bad in BAD.items() if bad.kind is OutOfMemory]


@pytest.fixture
def good(tmp_path: Path) -> str:
    return save(perceptron(), tmp_path / "good.onnx")


def write(name: str, tmp_path: Path) -> str:
    """Write one bad file into a folder of its own and return its path."""
    path = tmp_path / name / "model" / "bad.onnx"
    path.parent.mkdir(parents=True)
    BAD[name].write(path)
    return str(path)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_sentence_of_the_right_kind(tmp_path: Path, name: str) -> None:
    path, bad = write(name, tmp_path), BAD[name]
    with pytest.raises(ModelError) as caught:
        epsinas_onnx.score(path, batch=4, lump=name not in FREE_WHEN_LUMPED)
    text = str(caught.value)
    assert_sentence(text)
    assert text.startswith(f"{path}: ")
    assert [word for word in bad.words if word not in text.removeprefix(path)] == []
    assert issubclass(type(caught.value), bad.kind) if bad.kind is ModelError else type(caught.value) is bad.kind


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_costs_a_batch_one_row_and_the_exit_code_3(tmp_path: Path, good: str, name: str) -> None:
    path = write(name, tmp_path)
    listed = f"{path}\n{good}\n"  # a list, because a folder among the arguments would be searched through
    mode = "--no-lump" if name in FREE_WHEN_LUMPED else "--lump"
    done = command("score", "-", "--batch", "4", "--format", "json", mode, stdin=listed)
    assert (done.code, done.err) == (3, "")
    failed, scored = json.loads(done.out)
    assert (failed["model"], failed["status"], failed["score"]) == (path, "error", None)
    assert failed["reason"].startswith(f"{path}: ")
    assert_sentence(failed["reason"])
    assert (scored["model"], scored["status"]) == (good, "ok")
    assert scored["score"] == epsinas_onnx.score(good, batch=4, lump=name not in FREE_WHEN_LUMPED).score


@pytest.mark.parametrize("name", FREE_WHEN_LUMPED)
def test_what_is_too_large_for_the_plain_graph_alone_is_run_lumped(tmp_path: Path, name: str) -> None:
    result = epsinas_onnx.score(write(name, tmp_path), batch=4)
    assert result.provider is not None  # so it was run; what came of it is not the point


def test_score_many_goes_on_after_every_bad_file(tmp_path: Path, good: str) -> None:
    models = [path for name in BAD if name not in FREE_WHEN_LUMPED for path in (write(name, tmp_path), good)]
    found = list(epsinas_onnx.score_many(models, batch=4))
    assert [result.model for result in found] == models
    assert {result.status for result in found[::2]} == {epsinas_onnx.Status.ERROR}
    assert {result.score for result in found[1::2]} == {epsinas_onnx.score(good, batch=4).score}


def test_nothing_but_the_rows_is_written_whatever_the_files_are(tmp_path: Path, good: str) -> None:
    names = [name for name in BAD if name not in FREE_WHEN_LUMPED]
    listed = "\n".join([*(write(name, tmp_path) for name in names), good])
    done = new_process("score", "-", "--batch", "4", "--format", "jsonl", "--jobs", "1", stdin=listed)
    assert done.code == 3
    assert done.err == ""  # not even what libraries log
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["status"] for row in rows] == ["error"] * len(names) + ["ok"]


@pytest.mark.parametrize("name", ["missing", "empty", "truncated", "text", "a zip", "opset 6", "climbs by dots"])
def test_inspect_and_rewrite_say_the_same_of_a_bad_file(tmp_path: Path, name: str) -> None:
    path = write(name, tmp_path)
    with pytest.raises(ModelError) as caught:
        epsinas_onnx.score(path, batch=4)
    target = tmp_path / "out.onnx"
    for args in (("inspect", path), ("rewrite", path, "--weight", "1", "--output", str(target))):
        done = command(*args)
        assert (done.code, done.out, done.err) == (3, "", f"Error: {caught.value}\n")
    assert not target.exists()


@pytest.mark.parametrize("name", MEMORY)
def test_what_needs_too_much_memory_is_refused_before_anything_is_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = write(name, tmp_path)
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_, **__: pytest.fail("a session was made"))
    tracemalloc.start()
    try:
        with pytest.raises(OutOfMemory):
            epsinas_onnx.score(path, batch=4, lump=name not in FREE_WHEN_LUMPED)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()


def test_a_batch_that_needs_too_much_memory_is_refused_and_a_small_one_is_scored(good: str) -> None:
    with pytest.raises(OutOfMemory, match="lower --batch"):
        epsinas_onnx.score(good, batch=10**12)
    assert epsinas_onnx.score(good, batch=4).status == "ok"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak is counted in other units")
def test_a_long_vector_of_weights_takes_no_memory(tmp_path: Path) -> None:
    sizes = {"low": np.asarray([0]), "high": np.asarray([12]), "size": np.asarray([3, 4])}
    path = save(external(build(FLAT, V=(4, 2), **sizes), "gone.bin", W=(2**24,)), tmp_path / "flat.onnx")
    done = subprocess.run([sys.executable, "-c", PRINT_PEAK, path], capture_output=True, text=True, check=False)
    status, kibibytes = done.stdout.split()
    assert status == "ok"
    assert int(kibibytes) < 600 * 1024


def test_a_file_that_was_cut_off_anywhere_is_refused() -> None:
    data = perceptron().SerializeToString()
    assert epsinas_onnx.score(data, batch=4).status == "ok"
    for end in range(len(data)):
        with pytest.raises(ModelError) as caught:
            epsinas_onnx.score(data[:end], batch=4)
        assert_sentence(str(caught.value))


def test_a_model_is_a_path_bytes_or_a_model() -> None:
    for wrong in (3, None, perceptron().graph):
        with pytest.raises(UsageError, match=f"not {type(wrong).__name__}"):
            epsinas_onnx.score(wrong)  # type: ignore[arg-type]


# Data files that are fine.


def test_a_weight_is_scored_without_its_data_file(tmp_path: Path) -> None:
    stored = perceptron()
    apart = perceptron()
    del apart.graph.initializer[:]
    external(apart, "gone.bin", W=(3, 4), V=(4, 2), B=(2,))
    wanted = epsinas_onnx.score(save(stored, tmp_path / "stored.onnx"), batch=4)
    got = epsinas_onnx.score(save(apart, tmp_path / "apart.onnx"), batch=4)
    assert (got.score, got.parameters) == (wanted.score, wanted.parameters)
    assert wanted.score is not None
    assert command("score", str(tmp_path / "apart.onnx"), "--batch", "4").code == 0


@pytest.mark.parametrize("location", ["scale.bin", "data/scale.bin", "data/../scale.bin"])
def test_a_kept_constant_is_read_from_its_data_file(tmp_path: Path, location: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / location).write_bytes(SCALE.tobytes())
    apart = save(external(build(SCALED, W=(3, 4), V=(4, 2)), location, K=(3,)), tmp_path / "apart.onnx")
    stored = build(SCALED, W=(3, 4), V=(4, 2), K=SCALE)
    wanted = epsinas_onnx.score(stored, batch=4)
    assert wanted.score not in (
        None,
        epsinas_onnx.score(build(SCALED, W=(3, 4), V=(4, 2), K=SCALE[::-1]), batch=4).score,
    )
    assert epsinas_onnx.score(apart, batch=4).score == wanted.score


def test_a_role_frees_a_model_from_a_data_file_that_is_missing(tmp_path: Path) -> None:
    path = save(external(build(SCALED, W=(3, 4), V=(4, 2)), "gone.bin", K=(3,)), tmp_path / "model.onnx")
    assert epsinas_onnx.score(path, batch=4, roles={"K": "weight"}, weights=(0.1, 1)).status == "ok"


def test_a_kept_constant_without_bytes_is_refused_and_a_weight_without_bytes_is_scored() -> None:
    kept, free = build(SCALED, W=(3, 4), V=(4, 2), K=SCALE), build(SCALED, W=(3, 4), V=(4, 2), K=SCALE)
    next(tensor for tensor in kept.graph.initializer if tensor.name == "K").ClearField("raw_data")
    next(tensor for tensor in free.graph.initializer if tensor.name == "W").ClearField("raw_data")
    assert epsinas_onnx.score(free, batch=4).status == "ok"
    with pytest.raises(ModelError, match="'K'") as caught:
        epsinas_onnx.score(kept, batch=4)
    assert_sentence(str(caught.value))


# Calls that are wrong for any file.


@dataclass(frozen=True)
class Wrong:
    """Keyword arguments of `score`, the same as options of the command line (None where it has none), and words."""

    call: dict[str, Any]
    options: tuple[str, ...] | None
    words: tuple[str, ...]


WRONG: dict[str, Wrong] = {
    "batch 1": Wrong({"batch": 1}, ("--batch", "1"), ("minibatch of 1", "at least 2")),
    "batch 0": Wrong({"batch": 0}, ("--batch", "0"), ("minibatch of 0", "at least 2")),
    "equal constants": Wrong({"weights": (1, 1)}, ("--weights", "1,1"), ("equal in float32", "two different")),
    "constants that underflow to the same": Wrong(
        {"weights": (1e-60, 0)}, ("--weights", "1e-60,0"), ("1e-60 is 0 in float32", "1.4e-45")
    ),
    "constants that round to the same": Wrong(
        {"weights": (1, 1 + 1e-9)}, ("--weights", "1,1.000000001"), ("equal in float32",)
    ),
    "constants of two signs of nothing": Wrong({"weights": (0.0, -0.0)}, ("--weights", "0,-0"), ("equal in float32",)),
    "a constant that is NaN": Wrong({"weights": (float("nan"), 1)}, ("--weights", "nan,1"), ("finite",)),
    "an infinite constant": Wrong({"weights": (1, float("inf"))}, ("--weights", "1,inf"), ("finite",)),
    "a constant that is 0 in float32": Wrong(
        {"weights": (1e-60, 1)}, ("--weights", "1e-60,1"), ("1e-60 is 0 in float32", "1.4e-45", "larger")
    ),
    "a negative constant that is 0 in float32": Wrong(
        {"weights": (1, -1e-46), "dtype": "model"}, ("--weights", "1,-1e-46", "--dtype", "model"), ("-1e-46 is 0",)
    ),
    "a constant beyond float32": Wrong({"weights": (1, 1e60)}, ("--weights", "1,1e60"), ("1e+60", "finite")),
    "one constant": Wrong({"weights": (1,)}, ("--weights", "1"), ("two numbers",)),
    "an unknown role": Wrong({"roles": {"W": "wieght"}}, ("--role", "W=wieght"), ("'wieght'", "weight, bias")),
    "a negative seed": Wrong({"seed": -1}, ("--seed", "-1"), ("seed", "-1", "from 0 on")),
    "an unknown provider": Wrong({"providers": "tpu"}, None, ("'tpu'", "cpu")),
    "unknown statistics": Wrong({"norm_stats": "none"}, None, ("'none'", "batch, reset, stored")),
    "an unknown element type": Wrong({"dtype": "float8"}, ("--dtype", "float8"), ("'float8'", "float32 or model")),
    "inputs that are no file": Wrong({"inputs": "gray"}, ("--input", "gray"), ("'gray'", "neither")),
    "a ragged list": Wrong({"inputs": [[1.0, 2.0, 3.0], [1.0, 2.0]]}, None, ("rectangular",)),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_call_is_one_sentence_and_a_usage_error(good: str, name: str) -> None:
    wrong = WRONG[name]
    with pytest.raises(UsageError) as caught:
        epsinas_onnx.score(good, **wrong.call)
    assert_sentence(str(caught.value))
    assert [word for word in wrong.words if word not in str(caught.value)] == []
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_call_of_score_many_is_refused_before_the_first_model(name: str) -> None:
    def models() -> Any:
        pytest.fail("a model was asked for")
        yield

    with pytest.raises(UsageError):
        epsinas_onnx.score_many(models(), **WRONG[name].call)


@pytest.mark.parametrize("name", [name for name, wrong in WRONG.items() if wrong.options is not None])
def test_a_wrong_command_ends_with_2_and_scores_nothing(tmp_path: Path, good: str, name: str) -> None:
    wrong, target = WRONG[name], tmp_path / "results.jsonl"
    done = command("score", good, *(wrong.options or ()), "--output", str(target))
    assert (done.code, done.out) == (2, "")
    assert not target.exists()
    assert done.err.startswith("Error: ")
    assert_sentence(done.err.removesuffix("\n"))
    assert [word for word in wrong.words if word not in done.err] == []


@pytest.mark.parametrize("level", [np.nan, np.inf, -np.inf])
def test_given_inputs_with_nan_or_infinities_are_a_wrong_call(tmp_path: Path, good: str, level: float) -> None:
    array = np.ones((4, 3), np.float32)
    array[2, 1] = level
    np.save(tmp_path / "bad.npy", array)
    np.savez(tmp_path / "bad.npz", x=array)
    for given in (array, {"x": array}, tmp_path / "bad.npy", tmp_path / "bad.npz", {"x": tmp_path / "bad.npy"}):
        with pytest.raises(UsageError, match="1 NaN or infinite entries of 12") as caught:
            epsinas_onnx.score(good, inputs=given)
        assert_sentence(str(caught.value))
    for text in (str(tmp_path / "bad.npy"), str(tmp_path / "bad.npz"), f"x={tmp_path / 'bad.npy'}"):
        done = command("score", good, good, "--input", text)
        assert (done.code, done.out) == (2, "")
        assert "NaN or infinite" in done.err


@pytest.mark.parametrize(
    ("name", "content"), [("text.npy", b"no array"), ("empty.npy", b""), ("cut.npy", b"\x93NUMPY\x01")]
)
def test_an_input_file_that_is_no_array_is_a_wrong_call(tmp_path: Path, good: str, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=name) as caught:
        epsinas_onnx.score(good, inputs=tmp_path / name)
    assert_sentence(str(caught.value))
    assert command("score", good, "--input", str(tmp_path / name)).code == 2


def test_an_archive_without_arrays_is_a_wrong_call_and_nothing_is_fed_in_its_place(tmp_path: Path, good: str) -> None:
    np.savez(tmp_path / "none.npz")
    for given in (tmp_path / "none.npz", {"x": tmp_path / "none.npz"}, {}):
        with pytest.raises(UsageError) as caught:
            epsinas_onnx.score(good, inputs=given, batch=4)
        assert_sentence(str(caught.value))
    assert command("score", good, "--input", str(tmp_path / "none.npz")).code == 2


@pytest.mark.parametrize("inputs", [np.ones((1, 3), np.float32), {"x": np.ones((1, 3), np.float32)}])
def test_a_single_given_sample_is_a_wrong_call(good: str, inputs: Any) -> None:
    with pytest.raises(UsageError, match="single sample") as caught:
        epsinas_onnx.score(good, inputs=inputs)
    assert_sentence(str(caught.value))


def test_arrays_of_python_objects_are_never_unpickled(tmp_path: Path, good: str) -> None:
    np.save(tmp_path / "objects.npy", np.asarray([{"a": 1}, None], dtype=object), allow_pickle=True)
    with pytest.raises(UsageError, match=r"objects\.npy"):
        epsinas_onnx.score(good, inputs=tmp_path / "objects.npy")


def test_a_folder_without_images_is_a_wrong_call(tmp_path: Path, good: str) -> None:
    image = save(build("(float[N,1,4,4] x) => (float[N,1,4,4] y) { y = Tanh(x) }"), tmp_path / "image.onnx")
    (tmp_path / "images").mkdir()
    with pytest.raises(UsageError, match="holds no images"):
        epsinas_onnx.score(image, inputs=tmp_path / "images")
    assert command("score", image, "--input", str(tmp_path / "images")).code == 2


def test_a_folder_without_models_is_a_wrong_command(tmp_path: Path, good: str) -> None:
    (tmp_path / "empty").mkdir()
    done = command("score", good, str(tmp_path / "empty"))
    assert (done.code, done.out) == (2, "")
    assert done.err == f"Error: the folder {tmp_path / 'empty'} holds no .onnx file\n"


# Options that do not go with one model of a batch.


@dataclass(frozen=True)
class Misfit:
    """Options that fit the first graph and not the second, and what is said of that."""

    fits: str
    other: str
    call: dict[str, Any]
    options: tuple[str, ...]
    kind: type[ModelError]
    words: tuple[str, ...]


TIMES = "{ h = MatMul(x, W)  r = Tanh(h)  p = ReduceMean <keepdims = 0> (r, one)  y = MatMul(p, V) }"
FITS = "(float[N,T,3] x) => (float[N,2] y) " + TIMES
MISFITS: dict[str, Misfit] = {
    "a shape of another size": Misfit(
        FITS, FITS.replace("T", "6", 1), {"shapes": {"x": (1, 5, 3)}}, ("--shape", "x=1,5,3"),
        ShapeError, ("1,5,3", "'x'", "[N,6,3]"),
    ),
    "a shape of another rank": Misfit(
        FITS, "(float[N,3] x) => (float[N,2] y) { h = MatMul(x, W)  y = MatMul(h, V) }",
        {"shapes": {"x": (1, 5, 3)}}, ("--shape", "x=1,5,3"), ShapeError, ("1,5,3", "'x'", "[N,3]"),
    ),
    "a shape for an input that is not there": Misfit(
        FITS, FITS.replace("x", "z"), {"shapes": {"x": (1, 5, 3)}}, ("--shape", "x=1,5,3"),
        ShapeError, ("'x'", "neither an input (z)"),
    ),
    "a size for a dimension that is not there": Misfit(
        FITS, FITS.replace("T", "L", 1), {"shapes": {"T": 5}}, ("--dim", "T=5"),
        ShapeError, ("'T'", "free dimension (L, N)"),
    ),
    "an output that is not there": Misfit(
        FITS, FITS.replace("r", "q"), {"outputs": "r"}, ("--output-name", "r"), ModelError, ("'r'", "outputs are y"),
    ),
    "a role for a computed operand": Misfit(
        FITS, FITS.replace("r = Tanh", "[here] r = Tanh"), {"roles": {"here": "weight"}}, ("--role", "here=weight"),
        ModelError, ("'here'", "Tanh", "computed at run time"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_options_that_do_not_fit_one_model_cost_that_model_alone(tmp_path: Path, name: str) -> None:
    misfit = MISFITS[name]
    paths = []
    for file, graph in (("other.onnx", misfit.other), ("fits.onnx", misfit.fits)):
        tensors = {"one": np.asarray([1])} if "one" in graph else {}
        paths.append(save(build(graph, W=(3, 4), V=(4, 2), **tensors), tmp_path / file))
    with pytest.raises(misfit.kind) as caught:
        epsinas_onnx.score(paths[0], batch=4, **misfit.call)
    assert type(caught.value) is misfit.kind
    text = str(caught.value)
    assert_sentence(text)
    assert text.startswith(f"{paths[0]}: ")
    assert [word for word in misfit.words if word not in text] == []
    done = command("score", *paths, "--batch", "4", *misfit.options, "--format", "json")
    assert done.code == 3, done.err
    failed, scored = json.loads(done.out)
    assert (failed["status"], failed["reason"]) == ("error", text)
    assert scored["score"] == epsinas_onnx.score(paths[1], batch=4, **misfit.call).score
    assert scored["status"] == "ok", scored["reason"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros((4, 5), np.float32), ("[4, 5]", "'x'", "[N,3]")),
        (np.zeros((4, 3, 1), np.float32), ("[4, 3, 1]", "'x'", "[N,3]")),
        (np.zeros((4, 3), np.int64), ("int64", "'x'", "float32")),
        ({"x": np.zeros((4, 3), np.float32), "z": np.zeros(4, np.float32)}, ("'z'", "inputs are x")),
    ],
)
def test_given_arrays_that_do_not_fit_are_a_shape_error(good: str, given: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(ShapeError) as caught:
        epsinas_onnx.score(good, inputs=given)
    assert_sentence(str(caught.value))
    assert str(caught.value).startswith(f"{good}: ")
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_name_of_several_lines_is_told_on_one(tmp_path: Path) -> None:
    proto = build("(float[N,3] x) => (float[N,3] y) { y = Tanh(x) }")
    proto.graph.node[0].domain = "my\ndomain"
    proto.opset_import.append(onnx.helper.make_opsetid("my\ndomain", 1))
    with pytest.raises(UnsupportedError) as caught:
        epsinas_onnx.score(save(proto, tmp_path / "lines.onnx"), batch=4)
    assert_sentence(str(caught.value))


def test_operators_that_multiply_integers_are_refused_by_name() -> None:
    stored = np.ones((4, 4), np.uint8)
    graph = "(float[N,4] x) => (float[N,4] y) { [q] y = com.microsoft.MatMulPacked(x, Q) }"
    proto = build(graph, Q=stored)
    proto.opset_import.add(domain="com.microsoft", version=1)
    with pytest.raises(UnsupportedError, match=r"'q' is MatMulPacked.*DequantizeLinear") as caught:
        epsinas_onnx.score(proto, batch=4)
    assert_sentence(str(caught.value))
