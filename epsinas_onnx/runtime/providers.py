"""Chooses execution providers, and says which command to run where ONNX Runtime or a provider is missing."""

from __future__ import annotations

import os
from typing import Any

from epsinas_onnx._util.install import pip_install
from epsinas_onnx.errors import MissingRuntime, UsageError
from epsinas_onnx.runtime.libraries import CUDA, TENSORRT, missing

CPU = "CPUExecutionProvider"
NAMES = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}

# A score needs one or two runs, so an exhaustive search for the fastest cuDNN algorithm never pays; TF32 keeps 10
# bits of the mantissa, and the metric is defined in float32.
_CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}

Provider = str | tuple[str, dict[str, str]]


def runtime() -> Any:
    """Return the onnxruntime module; raises MissingRuntime that names the command to run when there is none.

    Its telemetry, which since 1.29 sends names of models to its makers, is off where the user has not decided.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, when the library is loaded
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingRuntime(
            f"ONNX Runtime is not installed; run '{pip_install('cpu')}', or '{pip_install('gpu')}' on a machine with "
            "an NVIDIA GPU"
        ) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise MissingRuntime(
            "the installed ONNX Runtime is broken, probably because onnxruntime and onnxruntime-gpu were installed "
            "together; run 'pip uninstall onnxruntime onnxruntime-gpu' and install one of them"
        )
    return onnxruntime


def choose_providers(wanted: str, device_memory: float = 0.0) -> list[Provider]:
    """Return the providers for `cpu`, `cuda`, `tensorrt` or `auto` (CUDA where it can be loaded, else CPU), best first.

    device_memory: GB that a session may take of a GPU's memory, 0 for no limit.

    Raises UsageError for another name, MissingRuntime when the installed ONNX Runtime lacks the provider, or a driver,
    a GPU or a library is missing.
    """
    ort = runtime()
    available = ort.get_available_providers()
    if wanted == "auto":
        wanted = "cuda" if CUDA in available and missing(CUDA) is None else "cpu"
    if wanted not in NAMES:
        raise UsageError(f"there is no provider {wanted!r}; choose one of auto, {', '.join(NAMES)}")
    if NAMES[wanted] not in available:
        raise MissingRuntime(
            f"the installed ONNX Runtime has no {NAMES[wanted]}; run 'pip uninstall onnxruntime' and then "
            f"'{pip_install('gpu')}', or use --provider cpu"
        )
    if wanted == "cpu":
        return [CPU]
    lacks = missing(NAMES[wanted])
    if lacks is not None:
        raise MissingRuntime(f"{NAMES[wanted]} cannot be loaded: {lacks}; or use --provider cpu")
    limit = {"gpu_mem_limit": str(int(device_memory * 1e9)), "arena_extend_strategy": "kSameAsRequested"}
    cuda: list[Provider] = [(CUDA, _CUDA_OPTIONS | (limit if device_memory else {})), CPU]
    if wanted == "cuda":
        return cuda
    return [(TENSORRT, {"trt_max_workspace_size": limit["gpu_mem_limit"]} if device_memory else {}), *cuda]


def provider_name(provider: Provider) -> str:
    """Return a provider's name without its options."""
    return provider if isinstance(provider, str) else provider[0]
