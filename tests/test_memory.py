"""Models of a few kilobytes that ask for terabytes: no command takes them, and a sentence says why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import epsinas_onnx
from epsinas_onnx import ModelError, OutOfMemory
from epsinas_onnx.graph.inlined_size import MOST_NESTED, MOST_NODES
from epsinas_onnx.graph.load import load_model
from epsinas_onnx.graph.traversal import all_graphs

from .hostile import HOSTILE, functions, nested_functions, of
from .tiers import tiered

PEAK = 1_500_000_000
"""Bytes that a process may hold, a quarter of a gigabyte of which are libraries."""
PEAKS = """
import sys
from epsinas_onnx import EpsinasError, inspect, rewrite, score, strip
from epsinas_onnx.check.config import Config
from epsinas_onnx.check.runner import check_one

def run(command, path):
    try:
        if command == "check":
            findings = check_one(path, Config().settings_for(path), "cpu").findings
            return " ".join(finding.message for finding in findings)
        {
            "score": lambda: score(path, batch=4), "score --no-lump": lambda: score(path, batch=4, lump=False),
            "inspect": lambda: inspect(path), "strip": lambda: strip(path, output=path + ".out"),
            "rewrite": lambda: rewrite(path, weight=1.0, output=path + ".out"),
        }[command]()
    except EpsinasError as error:
        return str(error)
    return ""

for path in sys.argv[2:]:
    open("/proc/self/clear_refs", "w").write("5")  # forgets the peak so far (Linux, proc(5))
    said = run(sys.argv[1], path)
    peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(peak, said, sep=chr(9), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "command",
    tiered(
        ["score", "inspect", "score --no-lump", "strip", "rewrite", "check"],
        slow={"rewrite", "check"},
        exhaustive={"score --no-lump", "strip"},
    ),
)
def test_no_command_takes_the_memory_that_a_hostile_model_asks_for(tmp_path: Path, command: str) -> None:
    paths = []
    for number, hostile in enumerate(HOSTILE.values()):
        paths.append(str(tmp_path / f"{number}.onnx"))
        Path(paths[-1]).write_bytes(hostile.make().SerializeToString())
    done = subprocess.run([sys.executable, "-c", PEAKS, command, *paths], capture_output=True, text=True, check=False)
    lines = [line.split("\t", 1) for line in done.stdout.splitlines()]
    assert len(lines) == len(HOSTILE), f"{list(HOSTILE)[len(lines)]} ended it: {done.stderr[-2000:]}"
    too_much = {name: peak for name, (peak, _) in zip(HOSTILE, lines, strict=True) if int(peak) * 1024 > PEAK}
    assert too_much == {}
    said = dict(zip(HOSTILE, (text for _, text in lines), strict=True))
    for name, hostile in HOSTILE.items():
        assert "unexpected" not in said[name], name
        if command == "score" or hostile.unreadable:
            assert hostile.words in said[name], (name, said[name])
            assert bool(said[name]) == bool(hostile.words), (name, said[name])


def test_functions_may_make_as_many_nodes_as_is_said_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = functions(3)  # eight, and the product in front of them
    monkeypatch.setattr("epsinas_onnx.graph.inlined_size.MOST_NODES", 9)
    assert load_model(proto).nodes == 9
    monkeypatch.setattr("epsinas_onnx.graph.inlined_size.MOST_NODES", 8)
    with pytest.raises(ModelError, match="9 nodes, and 8 is the most"):
        load_model(proto)
    assert MOST_NODES >= 500_000


@pytest.mark.parametrize("depth", [1, 3, 9, 20, MOST_NESTED])
def test_bodies_may_lie_as_deep_as_is_said(depth: int) -> None:
    loaded = load_model(nested_functions(depth))
    assert sum(1 for _ in all_graphs(loaded.model.graph)) == 2 * depth + 1
    assert epsinas_onnx.score(nested_functions(depth), batch=4).status in ("ok", "underflow", "noise")
    with pytest.raises(ModelError, match=f"bodies {MOST_NESTED + depth} deep, and {MOST_NESTED} is the most"):
        load_model(nested_functions(MOST_NESTED + depth))


@pytest.mark.parametrize("lump", [True, False])
def test_as_much_is_made_of_constants_as_is_said_and_no_more(monkeypatch: pytest.MonkeyPatch, lump: bool) -> None:
    proto = of("r = Range(a, b, d)", a=0, b=5000, d=1)()
    monkeypatch.setattr("epsinas_onnx.graph.output_sizes.LARGEST", 40_000)
    assert epsinas_onnx.score(proto, batch=4, lump=lump).status == "ok"
    monkeypatch.setattr("epsinas_onnx.graph.output_sizes.LARGEST", 39_999)
    with pytest.raises(OutOfMemory, match=r"'Range\(r\)' \(Range\) makes 39.1 KiB out of constants alone"):
        epsinas_onnx.score(proto, batch=4, lump=lump)


def test_what_is_stored_is_not_what_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large tensor that is stored may be laid out anew: the file holds as much."""
    monkeypatch.setattr("epsinas_onnx.graph.output_sizes.LARGEST", 1000)
    proto = of("t = Transpose(a)  r = Add(t, t)", a=np.arange(6000).reshape(60, 100))()
    for lump in (True, False):
        assert epsinas_onnx.score(proto, batch=4, lump=lump).status == "ok"


def test_a_loop_that_grows_within_the_memory_is_run() -> None:
    body = (
        "b (int64 i, bool c, float[M,3] s) => (bool d, float[K,3] u) { d = Identity(c)  u = Concat <axis = 0> (s, s) }"
    )
    proto = of(f"r = Loop(t, , x) <body = {body}>", t=5)()
    assert epsinas_onnx.score(proto, batch=4).status == "ok"
