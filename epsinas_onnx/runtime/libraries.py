"""Finds out, without a session, what keeps an execution provider from loading: a driver, a GPU, or a library."""

from __future__ import annotations

import contextlib
import ctypes
import io
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"

_LIBRARIES = {CUDA: "onnxruntime_providers_cuda", TENSORRT: "onnxruntime_providers_tensorrt"}
_INSTALL = {
    CUDA: 'pip install "onnxruntime-gpu[cuda,cudnn]" brings those of CUDA and cuDNN',
    TENSORRT: "pip install tensorrt brings those of TensorRT",
}
_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_MISSING = re.compile(r"(\S+?\.(?:so|dll|dylib)[\w.]*): cannot open shared object file")


@cache
def missing(provider: str) -> str | None:
    """Return what a provider that ONNX Runtime lists lacks on this machine and what to do, in words; None for nothing.

    ONNX Runtime lists every provider that it was built with, falls back to another where one does not load, and says
    why on standard error alone. CUDA's libraries are loaded on the way, from where pip put them.
    """
    if provider not in _LIBRARIES:
        return None
    lacks = [text for text in (_no_driver(), *map(_no_library, _needed(provider))) if text]
    return "; ".join(dict.fromkeys(lacks)) or None


def preload(ort: Any) -> None:
    """Have ONNX Runtime load CUDA's libraries from where pip put them, without what it prints where there are none."""
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()


def _needed(provider: str) -> tuple[str, ...]:
    return (CUDA, TENSORRT) if provider == TENSORRT else (CUDA,)


def _no_driver() -> str | None:
    """Return why the NVIDIA driver has no GPU to offer."""
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        return f"there is no NVIDIA driver ({_DRIVER} is missing)"
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status or not count.value:
        return f"the NVIDIA driver finds no GPU (CUDA error {status})"
    return None


def _no_library(provider: str) -> str | None:
    """Return which library the provider's own cannot find."""
    import onnxruntime

    preload(onnxruntime)
    folder = Path(onnxruntime.__file__).parent / "capi"
    name = _LIBRARIES[provider]
    path = folder / (f"{name}.dll" if sys.platform == "win32" else f"lib{name}.so")
    if not path.exists():  # built in another way: a session tells
        return None
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        text = " ".join(str(error).split())
        found = _MISSING.search(text)
        if "undefined symbol" in text and "Provider_" in text:  # which ONNX Runtime itself defines, once it is loaded
            return None
        if found and found[1] == _DRIVER:  # said already
            return None
        lacking = found[1] if found else text
        whose = TENSORRT if "nvinfer" in lacking or "nvonnxparser" in lacking else CUDA
        return f"the library {lacking} cannot be loaded ({_INSTALL[whose]})"
    return None
