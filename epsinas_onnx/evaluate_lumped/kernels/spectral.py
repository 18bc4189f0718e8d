"""Kernels of Fourier transforms: of a whole axis, and of windows along a signal."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import fft

from epsinas_onnx.evaluate_lumped.call import Call
from epsinas_onnx.evaluate_lumped.kernels.layout import Kernel
from epsinas_onnx.evaluate_lumped.scaled import Array


def framed(signal: Array, step: int, length: int) -> Array:
    """Return `[batch, frames, length]` of a signal `[batch, time]` or `[batch, time, 1]`."""
    if signal.ndim == 3 and signal.shape[-1] != 1:
        raise ValueError("a signal of complex numbers")
    signal = signal.reshape(len(signal), -1)
    time = signal.shape[-1]
    if not 0 < length <= time or step < 1:
        raise ValueError(f"windows of {length} do not fit a signal of {time}")
    return np.lib.stride_tricks.sliding_window_view(signal, length, 1)[:, ::step]


def length_of(window: Any, length: Any) -> int:
    """Return how long a window is, by its shape or by a number."""
    return int(np.asarray(length).reshape(-1)[0]) if window is None else int(window.shape[0])


def spectrum(onesided: bool) -> Kernel:
    """Return what transforms the last axis of real numbers; real and imaginary parts lie along a new one."""
    return lambda x: _pairs(fft.rfft(x) if onesided else fft.fft(x), x.dtype)


def stft(call: Call) -> Kernel:
    """The transform of every window of a signal, each times the numbers of the window."""
    transform = spectrum(bool(call.attribute("onesided", 1)))

    def kernel(signal: Array, step: Array, window: Any = None, length: Any = None) -> Array:
        cut = framed(signal, int(np.asarray(step).reshape(-1)[0]), length_of(window, length))
        made: Array = transform(cut if window is None else cut * window)
        return made

    return kernel


def dft(call: Call) -> Kernel:
    """The transform along one axis; the last one holds real and imaginary parts, or real parts alone."""
    late = call.opset >= 20
    inverse, onesided = bool(call.attribute("inverse", 0)), bool(call.attribute("onesided", 0))
    own = int(call.attribute("axis", 1))

    def kernel(x: Array, length: Any = None, axis: Any = None) -> Array:
        place = (-2 if axis is None else int(np.asarray(axis).reshape(-1)[0])) if late else own
        place = place % x.ndim
        size = None if length is None else int(np.asarray(length).reshape(-1)[0])
        real = x.shape[-1] == 1
        whole = x[..., 0] if real else x[..., 0] + 1j * x[..., 1]
        if onesided and inverse:
            count = 2 * (whole.shape[place] - 1) if size is None else size
            made = fft.irfft(whole, count, axis=place)
            return np.asarray(made[..., None], x.dtype)
        if onesided:
            return _pairs(fft.rfft(whole.real, size, axis=place), x.dtype)
        return _pairs((fft.ifft if inverse else fft.fft)(whole, size, axis=place), x.dtype)

    return kernel


def _pairs(numbers: Array, dtype: Any) -> Array:
    return np.stack((numbers.real, numbers.imag), -1).astype(dtype, copy=False)
