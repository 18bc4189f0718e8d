"""`search --around`: a run from the command line, what it writes, and what is said of wrong words."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from epsinas_onnx import fill, score
from epsinas_onnx.search.around.space import Around
from tests.builders import Done, build, command, save

QUICK = ("--batch", "8", "--provider", "cpu", "--population", "4", "--tournament", "2")


@pytest.fixture
def network(tmp_path: Path) -> str:
    text = (
        "(float[N,3,8,8] x) => (float[N,4] y) { a = Conv<pads=[1,1,1,1]>(x, stem) r = Relu(a) "
        "b = Conv<pads=[1,1,1,1]>(r, inner) t = Relu(b) c = Conv(t, out) s = Add(c, r) u = Relu(s) "
        "p = GlobalAveragePool(u) f = Flatten(p) y = Gemm(f, head) }"
    )
    model = build(text, stem=(8, 3, 3, 3), inner=(12, 8, 3, 3), out=(8, 12, 1, 1), head=(8, 4))
    return save(model, tmp_path / "small.onnx")


def search(*args: str, code: int = 0) -> Done:
    done = command("search", *QUICK, *args)
    assert done.code == code, done.err
    return done


def test_the_best_are_written_and_run_after_fill(network: str, tmp_path: Path) -> None:
    found, folder = tmp_path / "found.json", tmp_path / "best"
    done = search(
        "--around", network, "--objective", "params", "--objective", "rank:swap,params", "--reference", "6",
        "--trials", "8", "-o", str(found), "--write", str(folder), "--best", "3",
    )  # fmt: skip
    assert "2 widths, 1 row of blocks, 2 kernels, 1 activation can be changed" in done.err
    record = json.loads(found.read_text())
    space = Around(network)
    assert all(space.check(one["arch"]) == one["arch"] for one in record["ranked"])
    written = re.findall(r"^(\S+\.onnx): (\S+)$", done.err, re.MULTILINE)
    assert [arch for _, arch in written] == [one["arch"] for one in record["ranked"][:3]]
    for path, arch in written:
        assert [(one.key, one.value) for one in onnx.load(path).metadata_props] == [("epsinas.architecture", arch)]
        assert Path(path).stat().st_size < 10_000
        proto = fill(path)
        session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        assert session.run(None, {"x": np.ones((2, 3, 8, 8), np.float32)})[0].shape == (2, 4)
    for (path, _), one in zip(written, record["ranked"], strict=False):
        assert score(path, batch=8).parameters == one["values"]["params"]


def test_optuna_chooses_widths_in_order(network: str) -> None:
    done = search(
        "--around", network, "--sampler", "tpe", "--objective", "params", "--trials", "6", "--change", "width"
    )
    assert "8 trials" in done.out or "6 trials" in done.out
    assert "depth:" not in done.out


def test_a_search_goes_on_and_another_network_is_another_study(network: str, tmp_path: Path) -> None:
    storage = ("--storage", str(tmp_path / "s.db"), "--objective", "params")
    search("--around", network, "--trials", "3", *storage)
    again = search("--around", network, "--trials", "5", *storage)
    assert "5 trials" in again.out
    refused = search("--around", network, "--trials", "5", "--max-width", "1", *storage, code=2)
    assert "name another study with --study" in refused.err


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ((), 2, "name a search space (the command spaces lists them), or a network with --around, not both"),
        (("nasbench201", "--around", "NETWORK"), 2, "not both"),
        (("--around", "nowhere.onnx"), 3, "nowhere.onnx"),
        (("--around", "NETWORK", "--change", "colour"), 2, "there is no change 'colour'"),
        (("--around", "NETWORK", "--min-width", "0"), 2, "narrowest is 0; it must be from 0.01 to 1"),
        (("--around", "NETWORK", "--write", "NETWORK"), 2, "is a file, and networks go into a folder"),
    ],
)
def test_wrong_words_are_named(network: str, args: tuple[str, ...], code: int, message: str) -> None:
    done = search(*(network if arg == "NETWORK" else arg for arg in args), code=code)
    assert message in " ".join(done.err.split())
