"""Other training-free scores of the same file: counts, activation patterns, spectra and gradients by the input.

`measure` gives them, `registry` knows them by name, and a subclass of `Proxy` is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epsinas_onnx.proxies.measure import measure, measure_prepared
    from epsinas_onnx.proxies.measurement import Measurement, MeasurementStatus
    from epsinas_onnx.proxies.prepared import Prepared, prepare
    from epsinas_onnx.proxies.proxy import Proxy, UndefinedError
    from epsinas_onnx.proxies.registry import find_proxies, find_proxy, proxy_names

_HOME = {
    "Measurement": "measurement",
    "MeasurementStatus": "measurement",
    "Prepared": "prepared",
    "Proxy": "proxy",
    "UndefinedError": "proxy",
    "find_proxies": "registry",
    "find_proxy": "registry",
    "measure": "measure",
    "measure_prepared": "measure",
    "prepare": "prepared",
    "proxy_names": "registry",
}

__all__ = [
    "Measurement",
    "MeasurementStatus",
    "Prepared",
    "Proxy",
    "UndefinedError",
    "find_proxies",
    "find_proxy",
    "measure",
    "measure_prepared",
    "prepare",
    "proxy_names",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
