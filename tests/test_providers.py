"""Execution providers: what keeps one from loading is told, and inputs stay where a provider has its memory."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import onnxruntime
import pytest
from typer.testing import CliRunner

from epsinas_onnx import Status, UsageError, score, score_many
from epsinas_onnx.cli.main import app
from epsinas_onnx.errors import MissingRuntime, OutOfMemory
from epsinas_onnx.runtime import libraries, providers, session
from epsinas_onnx.runtime.libraries import CUDA, TENSORRT
from epsinas_onnx.runtime.providers import CPU, choose_providers

MODELS = Path(__file__).parents[1] / "models"
NETWORK = str(MODELS / "nb201-p-c1-s-c1-s-s.onnx")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    libraries.missing.cache_clear()
    yield
    libraries.missing.cache_clear()


class Machine:
    """Stands in for ctypes.CDLL: a machine with some libraries and so many GPUs."""

    def __init__(self, gpus: int | None, lacking: dict[str, str]) -> None:
        self.gpus, self.lacking = gpus, lacking

    def __call__(self, name: str) -> Any:
        for part, why in self.lacking.items():
            if part in name:
                raise OSError(why)
        if "cuda.so.1" not in name and "nvcuda" not in name:
            return SimpleNamespace()
        if self.gpus is None:
            raise OSError(f"{name}: cannot open shared object file")

        def count(place: Any) -> int:
            ctypes.cast(place, ctypes.POINTER(ctypes.c_int))[0] = self.gpus or 0
            return 0

        return SimpleNamespace(cuInit=lambda _: 0 if self.gpus else 100, cuDeviceGetCount=count)


LACKS_BLAS = {"providers_cuda": "libcublasLt.so.13: cannot open shared object file: No such file or directory"}
LACKS_TENSORRT = {"providers_tensorrt": "libnvinfer.so.10: cannot open shared object file: No such file or directory"}


@pytest.mark.parametrize(
    ("machine", "provider", "words"),
    [
        (Machine(1, {}), CUDA, None),
        (Machine(1, {}), TENSORRT, None),
        (Machine(None, {}), CUDA, ["no NVIDIA driver"]),
        (Machine(0, {}), CUDA, ["finds no GPU (CUDA error 100)"]),
        (Machine(1, LACKS_BLAS), CUDA, ["libcublasLt.so.13 cannot be loaded", "onnxruntime-gpu[cuda,cudnn]"]),
        (Machine(1, LACKS_TENSORRT), CUDA, None),
        (Machine(1, LACKS_TENSORRT), TENSORRT, ["libnvinfer.so.10 cannot be loaded", "pip install tensorrt"]),
        (
            Machine(1, {"providers_tensorrt": "libcublas.so.13: cannot open shared object file"}),
            TENSORRT,
            ['libcublas.so.13 cannot be loaded (pip install "onnxruntime-gpu[cuda,cudnn]"'],
        ),
        (Machine(0, LACKS_BLAS), CUDA, ["finds no GPU", "libcublasLt.so.13"]),
        (Machine(1, {"providers_cuda": "x.so: undefined symbol: Provider_GetHost"}), CUDA, None),
        (Machine(None, {"providers_cuda": "libcuda.so.1: cannot open shared object file"}), CUDA, ["no NVIDIA driver"]),
        (Machine(None, {}), CPU, None),
    ],
)
def test_what_a_provider_lacks_is_named(
    tmp_path: Path, machine: Machine, provider: str, words: list[str] | None
) -> None:
    capi = tmp_path / "capi"
    capi.mkdir()
    for name in ("cuda", "tensorrt"):
        for file in (f"libonnxruntime_providers_{name}.so", f"onnxruntime_providers_{name}.dll"):
            (capi / file).touch()
    with (
        mock.patch.object(libraries.ctypes, "CDLL", machine),
        mock.patch.object(onnxruntime, "__file__", str(tmp_path / "__init__.py")),
    ):
        found = libraries.missing(provider)
    if words is None:
        assert found is None
    else:
        assert found is not None
        assert all(word in found for word in words), found
        assert found.count("libcuda.so.1") <= 1


def test_what_onnx_runtime_prints_of_libraries_does_not_come_through(capsys: pytest.CaptureFixture[str]) -> None:
    libraries.preload(SimpleNamespace(preload_dlls=lambda: sys.stdout.write("Failed to load libcublasLt.so.13")))
    libraries.preload(SimpleNamespace())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("lacks", [None, "there is no NVIDIA driver"])
def test_auto_takes_cuda_only_where_it_loads(lacks: str | None) -> None:
    fake = SimpleNamespace(get_available_providers=lambda: [TENSORRT, CUDA, CPU])
    with (
        mock.patch.object(providers, "runtime", return_value=fake),
        mock.patch.object(providers, "missing", return_value=lacks),
    ):
        names = [one if isinstance(one, str) else one[0] for one in choose_providers("auto")]
        assert names == ([CUDA, CPU] if lacks is None else [CPU])
        if lacks is not None:
            with pytest.raises(MissingRuntime, match=r"CUDAExecutionProvider cannot be loaded: there is no NVIDIA"):
                choose_providers("cuda")


@pytest.mark.parametrize("wanted", ["cuda", "tensorrt"])
def test_a_limit_of_device_memory_reaches_the_provider_in_bytes(wanted: str) -> None:
    fake = SimpleNamespace(get_available_providers=lambda: [TENSORRT, CUDA, CPU])
    with (
        mock.patch.object(providers, "runtime", return_value=fake),
        mock.patch.object(providers, "missing", return_value=None),
    ):
        free, limited = choose_providers(wanted), choose_providers(wanted, 1.5)
    assert [dict(one[1]).get("gpu_mem_limit") for one in limited if one[0] == CUDA] == ["1500000000"]
    assert [dict(one[1]).get("trt_max_workspace_size") for one in limited if one[0] == TENSORRT] == (
        ["1500000000"] if wanted == "tensorrt" else []
    )
    assert "1500000000" not in str(free)


@pytest.mark.parametrize("limit", [-1.0, float("inf"), float("nan")])
def test_a_limit_that_is_none_is_refused(limit: float) -> None:
    with pytest.raises(UsageError, match="device memory is a number of GB"):
        next(score_many([NETWORK], device_memory=limit))


@pytest.mark.parametrize("lump", [True, False])
def test_scores_are_the_same_with_inputs_that_stay_on_the_device(lump: bool) -> None:
    """The CPU is a device too, so that what a GPU's provider goes through is run here."""
    options: dict[str, Any] = {"batch": 8, "arithmetic": "float32", "lump": lump, "providers": "cpu"}
    wanted = score(NETWORK, **options)
    moved: list[tuple[int, ...]] = []
    original = onnxruntime.OrtValue.ortvalue_from_numpy

    def counted(array: np.ndarray[Any, Any], *where: Any) -> Any:
        moved.append(array.shape)
        return original(array, *where)

    with (
        mock.patch.dict(session.DEVICES, {CPU: "cpu"}),
        mock.patch.object(onnxruntime.OrtValue, "ortvalue_from_numpy", staticmethod(counted)),
    ):
        found = score(NETWORK, **options)
    assert (found.status, found.score) == (Status.OK, wanted.score)
    assert len(moved) == 1, "the minibatch is moved once for both constants"


def test_a_full_device_is_told_with_its_limit_and_costs_one_row() -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : bfc_arena.cc:359 Failed to allocate memory of size 9")

    limited = [(CUDA, {"gpu_mem_limit": "2000000000"}), CPU]
    with (
        mock.patch.dict(session.DEVICES, {CPU: "cpu"}),
        mock.patch.object(session.Engine, "_run_on_device", fails),
    ):
        with pytest.raises(OutOfMemory, match="needs more memory; try a smaller --batch"):
            score(NETWORK, batch=8, arithmetic="float32", lump=False, providers="cpu")
        (row,) = score_many([NETWORK], batch=8, arithmetic="float32", lump=False, providers="cpu")
    assert row.status is Status.ERROR
    assert "than the 2 GB that --device-memory leaves each worker" in session._no_room("x", limited)


def test_the_commands_take_a_limit() -> None:
    for command in ("score", "rank", "evaluate"):
        assert "--device-memory" in CliRunner().invoke(app, [command, "--help"]).output
