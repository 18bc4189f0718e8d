"""Stored tensors at operators that nobody judged: every command says so, and `strip` does not leave them in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from epsinas_onnx import ModelError, inspect, score, strip
from epsinas_onnx.graph.operators import OPERATORS
from tests.builders import build, command, save
from tests.check.checking import checked, rules

SAYS = "nobody has judged whether"


def plugin(**tensors: Any) -> onnx.ModelProto:
    """Return a network with a custom operator that is fed what it stores."""
    names = ", ".join(tensors)
    graph = f"(float[N,8] x) => (float[N,8] y) {{ [plug] h = my.domain.Plugin(x, {names})  [last] y = MatMul(h, W) }}"
    return build(graph, W=(8, 8), **tensors)


@pytest.mark.parametrize(
    ("tensor", "judged"),
    [
        (np.ones((4, 8), np.float32), False),
        (np.ones((4, 8), np.float16), False),
        (np.ones(64, np.float32), False),
        (np.ones((4, 2, 16), np.uint8), False),
        (np.ones((8, 8), np.int32), False),
        (np.ones((3, 4), np.float32), True),
        (np.ones((8, 8), np.int64), True),
        (np.ones((8, 8), np.bool_), True),
    ],
)
def test_what_may_be_weights_is_not_left_in(tensor: Any, judged: bool) -> None:
    proto = plugin(P=tensor)
    assert any(SAYS in warning for warning in inspect(proto).warnings) is not judged
    if judged:
        assert "P" in [one.name for one in strip(proto).graph.initializer]
        return
    with pytest.raises(ModelError, match=r"'P' .*plug.*--role 'plug:1=weight'.*--role 'plug:1=constant'"):
        strip(proto)


def test_what_is_made_of_a_stored_tensor_counts_like_it() -> None:
    graph = "(float[N,8] x) => (float[N,8] y) { t = Transpose(P)  [plug] y = my.domain.Plugin(x, t) }"
    with pytest.raises(ModelError, match=r"'P' \[4, 8\], input 1 of my.domain::Plugin 'plug'"):
        strip(build(graph, P=(4, 8)))
    alone = "(float[N,8] x) => (float[N,8] y) { w = my.domain.Unpack(P)  y = MatMul(x, w) }"
    with pytest.raises(ModelError, match=r"my\.domain::Unpack"):
        strip(build(alone, P=(8, 8)))


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int32])
def test_a_role_says_whether_it_goes_or_stays(dtype: Any) -> None:
    proto = plugin(P=np.arange(32).reshape(4, 8).astype(dtype))
    gone, left = (strip(proto, roles={"plug:1": role}) for role in ("weight", "constant"))
    assert "P" not in [one.name for one in gone.graph.initializer]
    assert "P" in [one.name for one in left.graph.initializer]
    for made in (gone, left):  # what was told is written into the model
        assert inspect(made).warnings == inspect(proto, roles={"plug:1": "constant"}).warnings
        assert strip(made).SerializeToString() == made.SerializeToString()
        assert strip(made, anonymise=True)


def test_numbers_in_attributes_count_too() -> None:
    proto = plugin(k=np.ones(2, np.float32))
    proto.graph.node[0].attribute.append(helper.make_attribute("table", [0.5] * 20))
    proto.graph.node[0].attribute.append(helper.make_attribute("axes", list(range(20))))
    with pytest.raises(ModelError, match=r"attribute 'table' of my\.domain::Plugin 'plug' is a weight"):
        strip(proto)
    with pytest.raises(ModelError):  # nothing takes it out
        strip(proto, roles={"plug:table": "weight"})
    assert strip(proto, roles={"plug:table": "constant"})


def test_a_compiled_network_is_not_left_in() -> None:
    context = helper.make_node("EPContext", ["x"], ["y"], "compiled", domain="com.microsoft", embed_mode=1)
    context.attribute.append(helper.make_attribute("ep_cache_context", b"\0" * 5000))
    proto = build("(float[N,8] x) => (float[N,8] y) { y = Relu(x) }")
    proto.graph.node[0].CopyFrom(context)
    proto.opset_import.add(domain="com.microsoft", version=1)
    with pytest.raises(ModelError, match="ep_cache_context"):
        strip(proto)


def test_constants_at_known_operators_stay_without_a_word() -> None:
    graph = "(float[N,8] x) => (float[N,8] y) { a = Add(x, T)  s = Where(M, a, T)  y = MatMul(s, W) }"
    proto = build(graph, T=(8, 8), M=np.ones((8, 8), np.bool_), W=(8, 8))
    assert not [warning for warning in inspect(proto).warnings if SAYS in warning]
    assert {"T", "M"} <= {one.name for one in strip(proto).graph.initializer}


def test_score_and_check_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(OPERATORS, ("", "Mod"))  # as if onnx had added it since
    graph = "(float[N,8] x) => (float[N,8] y) { a = MatMul(x, W)  [new] b = Mod<fmod = 1>(a, P)  y = Tanh(b) }"
    proto = build(graph, W=(8, 8), P=np.full((4, 8), 9, np.float32))
    assert any("'P' [4, 8], input 1 of ai.onnx::Mod 'new'" in note for note in score(proto, batch=4).warnings)
    told = score(proto, batch=4, roles={"new:1": "constant"})
    assert told.warnings == ()
    assert score(strip(proto, roles={"new:1": "constant"}), batch=4).raw_score == told.raw_score
    assert "unjudged-operator" in rules(checked(proto, tmp_path))
    with pytest.raises(ModelError, match="--role 'new:1=constant'"):
        strip(proto)


def test_commands_say_so_and_strip_refuses_until_it_is_told(tmp_path: Path) -> None:
    path = save(plugin(P=(4, 8)), tmp_path / "model.onnx")
    done = command("check", path, "--config", save_config(tmp_path))
    assert "unjudged-operator" in done.out
    done = command("strip", path, "-o", str(tmp_path / "light.onnx"))
    assert (done.code, done.out) == (3, "")
    assert "--role 'plug:1=constant'" in done.err
    assert command("strip", path, "-o", str(tmp_path / "light.onnx"), "--role", "plug:1=weight").code == 0


def save_config(folder: Path) -> str:
    path = folder / "check.toml"
    path.write_text("")
    return str(path)
