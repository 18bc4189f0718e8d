"""Chooses execution providers, and says which command to run where ONNX Runtime or a provider is missing."""

from __future__ import annotations

import os
from typing import Any

from epsinas_onnx._util.install import pip_install
from epsinas_onnx.errors import MissingRuntime, UsageError

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
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


def choose_providers(wanted: str) -> list[Provider]:
    """Return the providers for `cpu`, `cuda`, `tensorrt` or `auto` (CUDA where it is there, else CPU), best first.

    Raises UsageError for another name, MissingRuntime when the installed ONNX Runtime lacks the provider.
    """
    ort = runtime()
    available = ort.get_available_providers()
    if wanted == "auto":
        wanted = "cuda" if CUDA in available else "cpu"
    if wanted not in NAMES:
        raise UsageError(f"there is no provider {wanted!r}; choose one of auto, {', '.join(NAMES)}")
    if NAMES[wanted] not in available:
        raise MissingRuntime(
            f"the installed ONNX Runtime has no {NAMES[wanted]}; run 'pip uninstall onnxruntime' and then "
            f"'{pip_install('gpu')}', or use --provider cpu"
        )
    if wanted == "cpu":
        return [CPU]
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    cuda: list[Provider] = [(CUDA, dict(_CUDA_OPTIONS)), CPU]
    return [TENSORRT, *cuda] if wanted == "tensorrt" else cuda


def provider_name(provider: Provider) -> str:
    """Return a provider's name without its options."""
    return provider if isinstance(provider, str) else provider[0]
