"""How many processes score at a time, and models that have no room beside others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from epsinas_onnx import Status, score, score_many
from epsinas_onnx.cli.main import app
from epsinas_onnx.errors import UsageError
from epsinas_onnx.runtime import cores, memory
from epsinas_onnx.scoring import jobs, workers
from epsinas_onnx.scoring.jobs import choose_jobs
from epsinas_onnx.scoring.options import score_options

MODEL = str(Path(__file__).parents[2] / "models" / "mlp.onnx")


@given(
    seen=st.integers(1, 256),
    limit=st.none() | st.floats(0.01, 300),
    gigabytes=st.integers(0, 512),
    count=st.integers(0, 9),
)
def test_auto_is_never_more_than_cores_memory_or_models_allow(
    seen: int, limit: float | None, gigabytes: int, count: int
) -> None:
    with (
        mock.patch.object(cores, "cores", return_value=seen),
        mock.patch.object(cores, "quota", return_value=limit),
        mock.patch.object(jobs, "available_bytes", return_value=gigabytes * 2**30),
    ):
        chosen = choose_jobs("auto", ["model"] * count)
        unknown = choose_jobs("auto", iter(["model"] * count))
    bound = max(1, min(seen, gigabytes, *([] if limit is None else [max(1, int(limit))])))
    assert unknown == bound
    assert chosen == (1 if count < 4 else min(bound, count))


def test_processes_do_not_share_a_gpu_unasked() -> None:
    assert choose_jobs("auto", [MODEL] * 100, "cuda") == choose_jobs("auto", [MODEL] * 100, "tensorrt") == 1
    assert choose_jobs(3, [MODEL] * 100, "cuda") == 3


@pytest.mark.parametrize("wanted", [0, -1, True, 1.5, "many", None])
def test_what_is_no_number_of_jobs_is_refused(wanted: Any) -> None:
    with pytest.raises(UsageError, match="whole number from 1, or auto"):
        next(score_many([MODEL], jobs=wanted))


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_the_command_refuses_them_too(text: str) -> None:
    result = CliRunner().invoke(app, ["score", MODEL, f"--jobs={text}"])
    assert isinstance(result.exception, UsageError)
    assert "--jobs takes a whole number from 1, or auto" in str(result.exception)


def _inline(
    work: Callable[..., Any], tasks: Iterable[tuple[str, tuple[Any, ...]]], jobs: int, *_: object, **__: object
) -> Iterator[tuple[int, Any]]:
    """Stands in for worker processes."""
    for index, (_, args) in enumerate(tasks):
        yield index, work(*args)


@pytest.mark.parametrize("proxies", [(), ("params",)])
def test_a_model_without_room_beside_others_is_scored_alone(proxies: tuple[str, ...]) -> None:
    needed: list[int] = []
    original = memory.refuse_if_too_large

    def tight(estimate: tuple[int, str], name: str, count: int = 1) -> None:
        needed.append(count)
        with mock.patch.object(memory, "available_bytes", return_value=int(1.5 * estimate[0])):
            original(estimate, name, count)

    options = score_options(batch=16, jobs=2, scores=proxies)
    with (
        mock.patch.object(memory, "_LITTLE", 0),
        mock.patch.object(workers, "work_in_processes", _inline),
        mock.patch("epsinas_onnx.scoring.pipeline.refuse_if_too_large", tight),
    ):
        found = dict(workers.score_in_processes([MODEL, "missing.onnx", MODEL], options))
    assert set(needed) == {1, 2}
    assert {index: one.status for index, one in found.items()} == {0: "ok", 1: "error", 2: "ok"}
    assert found[0].score == score(MODEL, batch=16).score
    assert [one.name for one in found[0].proxies.values()] == list(proxies)


def test_a_container_that_leaves_half_a_core_still_scores(tmp_path: Path) -> None:
    path = tmp_path / "cpu.max"
    path.write_text("50000 100000\n")
    with mock.patch.object(cores, "_QUOTA", path):
        assert cores.usable_cores() == 1


def test_models_that_follow_from_results_are_asked_for_after_them() -> None:
    results: list[Any] = []

    def models() -> Iterator[str]:
        for number in range(3):
            assert len(results) == number
            yield MODEL

    for found in score_many(models(), jobs=1, isolate=True, batch=8):
        results.append(found)
    assert [found.status for found in results] == [Status.OK] * 3
