"""What a store holds is not computed again, and nothing else is taken for it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epsinas_onnx import Store, score_many
from epsinas_onnx.graph.fingerprint import fingerprint
from epsinas_onnx.scoring.options import ScoreOptions
from epsinas_onnx.scoring.result import Score, Status
from epsinas_onnx.store import going_on
from epsinas_onnx.store.keys import NO_PART
from tests.builders import PERCEPTRON, build, external, perceptron, save
from tests.store.counting import Counted, built
from tests.store.holding import ask, held


def scored(store: Path, models: Sequence[Any], **options: Any) -> list[Score]:
    return list(score_many(models, store=store, **{"batch": 4, **options}))


def told(results: Sequence[Score]) -> list[dict[str, Any]]:
    return [result.to_dict() for result in results]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_a_second_run_computes_nothing_and_gives_the_same_rows(store: Path, log: Path) -> None:
    networks = [Counted(f"n{number}", str(log), width=2 + number) for number in range(5)]
    first = scored(store, networks)
    assert sorted(built(log)) == [network.name for network in networks]
    again = scored(store, networks)
    assert told(again) == told(first)
    assert len(built(log)) == len(networks)
    assert [result.score for result in first] == [result.score for result in score_many(networks, batch=4)]


def test_a_run_that_is_left_in_the_middle_goes_on(store: Path, log: Path) -> None:
    networks = [Counted(f"n{number}", str(log)) for number in range(5)]
    results = score_many(networks, batch=4, store=store)
    assert [next(results).model for _ in range(2)] == ["n0", "n1"]
    results.close()  # type: ignore[attr-defined]
    assert held(store) == {"n0": "ok", "n1": "ok"}
    assert [result.model for result in scored(store, networks)] == ["n0", "n1", "n2", "n3", "n4"]
    assert built(log) == ["n0", "n1", "n2", "n3", "n4"]


def test_errors_are_kept_and_tried_again(store: Path, log: Path, tmp_path: Path) -> None:
    bad = tmp_path / "today"
    bad.touch()
    networks = [Counted("good", str(log)), Counted("bad", str(log), fails=str(bad))]
    assert [result.status for result in scored(store, networks)] == [Status.OK, Status.ERROR]
    assert held(store) == {"good": "ok", "bad": "error"}
    assert [result.status for result in scored(store, networks)] == [Status.OK, Status.ERROR]
    bad.unlink()
    assert [result.status for result in scored(store, networks)] == [Status.OK, Status.OK]
    assert built(log) == ["good", "bad", "bad", "bad"]
    assert held(store) == {"good": "ok", "bad": "ok"}


OTHER_NUMBERS: Mapping[str, Mapping[str, Any]] = {
    "constants": {"weights": (1e-6, 1.0)}, "batch": {"batch": 5}, "kind of input": {"inputs": "uniform"},
    "seed": {"seed": 1}, "statistics": {"norm_stats": "reset"}, "lumping": {"lump": False},
    "arithmetic": {"arithmetic": "float32"}, "element type": {"dtype": "model"}, "outputs": {"outputs": ["r"]},
    "roles": {"roles": {"V": "constant"}}, "shapes": {"shapes": {"x": (1, 3)}},
    "restored": {"restore_batchnorm": "none"}, "arrays": {"inputs": np.eye(4, 3, dtype=np.float32)},
}  # fmt: skip


@pytest.mark.parametrize("what", OTHER_NUMBERS)
def test_what_changes_a_number_is_computed_again(store: Path, log: Path, what: str) -> None:
    network = Counted("n", str(log))
    scored(store, [network])
    scored(store, [network], **OTHER_NUMBERS[what])
    assert built(log) == ["n", "n"]
    scored(store, [network])
    scored(store, [network], **OTHER_NUMBERS[what])
    assert built(log) == ["n", "n"]


def test_every_option_changes_the_key_or_is_said_to_change_no_number() -> None:
    names = {field.name for field in dataclasses.fields(ScoreOptions)} - NO_PART
    changed = {key for options in OTHER_NUMBERS.values() for key in options}
    assert names - {"providers"} <= changed  # this machine has one provider


def test_what_changes_no_number_is_found(store: Path, log: Path) -> None:
    network = Counted("n", str(log))
    scored(store, [network])
    scored(
        store, [network], threads=1, jobs=2, timeout=60.0, memory=8.0, isolate=True, providers="cpu", seed=np.int64(0)
    )
    assert built(log) == ["n"]


def test_another_version_computes_again(store: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Counted("n", str(log))
    scored(store, [network])
    monkeypatch.setattr("epsinas_onnx.store.keys.versions", lambda: {"epsinas-onnx": "999"})
    scored(store, [network])
    assert built(log) == ["n", "n"]


def test_given_arrays_count_by_content_wherever_they_lie(store: Path, log: Path, tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    for name, rows in (("one.npy", array), ("two.npy", array), ("three.npy", array + 1)):
        np.save(tmp_path / name, rows)
    network = Counted("n", str(log))
    one, two = (scored(store, [network], inputs=str(tmp_path / name))[0] for name in ("one.npy", "two.npy"))
    assert (one.score, one.input) == (two.score, str(tmp_path / "one.npy"))
    assert two.input == str(tmp_path / "two.npy")
    assert len(built(log)) == 1
    scored(store, [network], inputs=str(tmp_path / "three.npy"))
    assert len(built(log)) == 2


# Files.


def seconds(results: Sequence[Score]) -> list[Mapping[str, float]]:
    """Return what tells results that were computed from those that were found: the clock never gives equal ones."""
    return [result.seconds for result in results]


def test_a_file_is_known_by_its_bytes_under_any_name(store: Path, tmp_path: Path) -> None:
    one, two = (save(perceptron(), tmp_path / name) for name in ("one.onnx", "two.onnx"))
    first, second = scored(store, [one, two])
    assert (first.model, second.model) == (one, two)
    assert first.seconds == second.seconds  # computed once, in one run too
    assert seconds(scored(store, [two])) == [first.seconds]
    shutil.move(one, tmp_path / "three.onnx")
    save(perceptron("Relu"), Path(one))
    changed, moved = scored(store, [one, tmp_path / "three.onnx"])
    assert (changed.seconds != first.seconds, moved.seconds == first.seconds) == (True, True)
    assert ask(store, "SELECT count(*) FROM results") == [(2,)]
    assert {name for (name,) in ask(store, "SELECT name FROM names")} == {
        json.dumps(str(name)) for name in (one, two, tmp_path / "three.onnx")
    }


def renamed() -> onnx.ModelProto:
    """Return the perceptron with other weights and names, stored in another order."""
    text = (
        PERCEPTRON.replace("first", "a")
        .replace("act", "b")
        .replace("last", "c")
        .replace("MatMul(x, W)", "MatMul(x, Q)")
    )
    return build(text, B=(2,), V=(4, 2), Q=(3, 4))


def test_equal_networks_share_a_score_under_names_of_their_own(store: Path, tmp_path: Path) -> None:
    one, other = save(perceptron(), tmp_path / "one.onnx"), save(renamed(), tmp_path / "other.onnx")
    assert fingerprint(one) == fingerprint(other)
    [alone] = score_many([other], batch=4)
    for models in ([one, other], [other, one]):
        first, second = scored(store, models)
        assert [first.model, second.model] == models
        assert first.score == second.score == pytest.approx(alone.score)
    assert second.warnings in ((), first.warnings)
    assert f"computes the same as {one}, which was run instead" in scored(store, [other])[0].warnings
    assert ask(store, "SELECT count(*), count(DISTINCT network) FROM sources") == [(2, 1)]
    later = save(perceptron(), tmp_path / "later.onnx")
    trained = onnx.load(later)
    trained.graph.initializer[0].raw_data = bytes(48)
    [shared] = scored(store, [save(trained, Path(later))])
    assert shared.seconds == {"total": 0.0}
    assert (shared.model, shared.score) == (later, first.score)


def test_tables_that_stay_constant_tell_networks_of_one_fingerprint_apart(store: Path, tmp_path: Path) -> None:
    def scaled(scale: Sequence[float]) -> str:
        text = "(float[N,3] x) => (float[N,2] y) { s = Sub(C, x)  h = MatMul(s, W)  t = Tanh(h)  y = Mul(t, t) }"
        proto = build(text, C=np.asarray(scale, np.float32), W=(3, 2))
        node = proto.graph.node[0]
        node.metadata_props.add(key="epsinas.role.0", value="constant")
        return save(proto, tmp_path / f"{scale}.onnx")

    one, other = scaled([0.0, 1.0, 2.0]), scaled([5.0, -1.0, 0.5])
    assert fingerprint(one) == fingerprint(other)
    expected = [result.score for result in score_many([one, other], batch=4)]
    assert expected[0] != pytest.approx(expected[1])
    assert [result.score for result in scored(store, [one, other])] == expected


def test_nothing_is_shared_where_an_option_names_parts(store: Path, tmp_path: Path) -> None:
    one, other = save(perceptron(), tmp_path / "one.onnx"), save(renamed(), tmp_path / "other.onnx")
    options = {"roles": {"a:1": "constant"}}
    expected = [result.score for result in score_many([one, other], batch=4, **options)]  # type: ignore[arg-type]
    assert expected[0] != expected[1]
    assert [result.score for result in scored(store, [one, other], **options)] == expected


def test_what_names_nodes_is_not_shared(store: Path, tmp_path: Path) -> None:
    def constant(name: str) -> str:
        text = f"(float[N,3] x) => (float[N,2] y) {{ [{name}] z = Mul(x, Z)  h = MatMul(z, W)  y = Tanh(h) }}"
        return save(build(text, Z=np.zeros(1, np.float32), W=(3, 2)), tmp_path / f"{name}.onnx")

    results = scored(store, [constant("one"), constant("two")])
    assert [result.status for result in results] == [Status.CONSTANT] * 2
    assert ["'one'" in str(results[0].reason), "'two'" in str(results[1].reason)] == [True, True]


def test_a_file_that_changes_while_it_is_scored_is_not_kept(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(save(perceptron(), tmp_path / "m.onnx"))
    before = going_on.source_of

    def changing(model: Any) -> Any:
        found = before(model)
        path.write_bytes(perceptron("Relu").SerializeToString())
        return found

    monkeypatch.setattr(going_on, "source_of", changing)
    [result] = scored(store, [path])
    assert result.status is Status.OK
    assert held(store) == {}


def test_data_files_count(store: Path, tmp_path: Path) -> None:
    path = save(external(build(PERCEPTRON, V=(4, 2), B=(2,)), "w.bin", W=(3, 4)), tmp_path / "m.onnx")
    (tmp_path / "w.bin").write_bytes(bytes(48))
    [first] = scored(store, [path], roles={"W": "weight"})
    (tmp_path / "w.bin").write_bytes(bytes(47) + b"\1")
    [second] = scored(store, [path], roles={"W": "weight"})
    (tmp_path / "w.bin").write_bytes(bytes(48))
    [third] = scored(store, [path], roles={"W": "weight"})
    assert (first.seconds == third.seconds, first.seconds == second.seconds) == (True, False)


def test_a_missing_file_is_an_error_that_gives_way(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    assert [result.status for result in scored(store, [path])] == [Status.ERROR]
    assert held(store) == {str(path): "error"}
    save(perceptron(), path)
    assert [result.status for result in scored(store, [path])] == [Status.OK]


def test_models_in_memory_are_known(store: Path) -> None:
    proto = perceptron()
    for model in (proto, proto.SerializeToString(), ir.from_proto(proto)):
        first, again = scored(store, [model])[0], scored(store, [model])[0]
        assert (first.model, first.to_dict()) == (again.model, again.to_dict())


class Unkeyed:
    """A network that says nothing of itself."""

    name = "unkeyed"

    def __init__(self, width: int) -> None:
        self.width = width

    def build(self) -> ir.Model:
        return ir.from_proto(perceptron(width=self.width))


def test_a_network_without_a_key_is_known_by_what_it_builds(store: Path) -> None:
    [first] = scored(store, [Unkeyed(4)])
    assert seconds(scored(store, [Unkeyed(4)])) == [first.seconds]
    assert seconds(scored(store, [Unkeyed(5)])) != [first.seconds]


# Other scores.


def test_other_scores_are_kept_one_by_one(store: Path, log: Path) -> None:
    network = Counted("n", str(log))
    [alone] = scored(store, [network])
    [one] = scored(store, [network], scores=["params"])
    assert (one.score, set(one.proxies), len(built(log))) == (alone.score, {"params"}, 2)
    [two] = scored(store, [network], scores=["macs", "params"])
    assert (list(two.proxies), two.proxies["params"], len(built(log))) == (["macs", "params"], one.proxies["params"], 3)
    for names in (["params"], ["macs"], ["params", "macs"], []):
        [found] = scored(store, [network], scores=names)
        assert (list(found.proxies), len(built(log))) == (names, 3)
    scored(store, [network], scores=["params"], proxy_batch=16)
    assert len(built(log)) == 4
    scored(store, [network], weights=(1e-6, 1.0), scores=["params", "macs"])
    assert len(built(log)) == 5
    assert ask(store, "SELECT batch, name FROM others ORDER BY 1, 2") == [(16, "params"), (32, "macs"), (32, "params")]


def test_equal_models_that_lack_other_scores_wait_for_each_other(store: Path, log: Path) -> None:
    network = Counted("n", str(log))
    scored(store, [network], scores=["params"])
    results = scored(store, [network, network], scores=["params", "macs"])
    assert [set(result.proxies) for result in results] == [{"params", "macs"}] * 2
    assert len(built(log)) == 2


# Whatever comes in whatever order.


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    runs=st.lists(st.lists(st.integers(0, 5), max_size=8), min_size=1, max_size=4), ready=st.sampled_from([1, 2, 100])
)
def test_every_model_is_computed_once_over_all_runs(
    tmp_path_factory: pytest.TempPathFactory, runs: list[list[int]], ready: int
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(going_on, "_READY", ready)
        for numbers in runs:
            networks = [Counted(f"n{number}", str(folder / "log"), width=2 + number) for number in numbers]
            with Store(folder / "results.db") as store:
                results = list(score_many(networks, batch=2, store=store))
                assert store.found + len(set(built(folder / "log"))) >= len(set(numbers))
            assert [result.model for result in results] == [network.name for network in networks]
            assert all(result.status is Status.OK for result in results)
    asked = {f"n{number}" for numbers in runs for number in numbers}
    assert sorted(built(folder / "log")) == sorted(asked)
    assert set(held(folder / "results.db")) == asked
