"""Unpickles foreign files without running anything in them."""

from __future__ import annotations

import collections
import pickle
from typing import IO, Any, NoReturn

import numpy as np


class RefusedPickle(ValueError):
    """A pickle that wants something beyond plain containers and numbers."""


def restricted_load(file: IO[bytes], name: str) -> Any:
    """Return what is pickled in `file`, which may hold plain containers, numbers, texts and NumPy arrays alone.

    name: for messages. Raises RefusedPickle that names the first thing refused, before anything of it is called, and
    ValueError where the file is cut off or no pickle.
    """
    try:
        return _Unpickler(file, name).load()
    except RefusedPickle:
        raise
    except (OSError, EOFError) as error:
        raise ValueError(f"{name}: is cut off or cannot be read ({error or 'no more data'}); fetch it again") from None
    except Exception as error:  # a broken pickle raises whatever its half-built objects raise
        raise ValueError(f"{name}: is no pickle, or a broken one ({type(error).__name__}: {error})") from None


def array_functions() -> dict[str, Any]:
    """Return the two functions that NumPy's own pickles call, under their names in `numpy.core.multiarray`."""
    rebuild: Any = np.zeros(0).__reduce__()
    number: Any = np.float64(0).__reduce__()
    return {"_reconstruct": rebuild[0], "scalar": number[0]}


def _latin1(text: str, encoding: str) -> bytes:
    """Return bytes out of the text that protocols before 3 keep them in; other encodings would look up a codec."""
    if encoding not in ("latin1", "latin-1"):
        raise RefusedPickle(f"wants the encoding {encoding!r}, which is refused")
    return text.encode("latin-1")


def _safe() -> dict[tuple[str, str], Any]:
    found: dict[tuple[str, str], Any] = {
        ("_codecs", "encode"): _latin1,
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("builtins", "set"): set,
        ("builtins", "frozenset"): frozenset,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }
    from_buffer: Any = np.zeros(1).__reduce_ex__(5)
    for package in ("numpy.core", "numpy._core"):  # its name before and since NumPy 2
        found |= {(f"{package}.multiarray", name): function for name, function in array_functions().items()}
        found[f"{package}.numeric", "_frombuffer"] = from_buffer[0]
    return found


class _Unpickler(pickle.Unpickler):
    _SAFE = _safe()

    def __init__(self, file: IO[bytes], name: str) -> None:
        super().__init__(file)
        self._name = name

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few things that are safe to call with any arguments."""
        # Protocol 2 and older call builtins by their name in Python 2.
        module = {"__builtin__": "builtins"}.get(module, module)
        if (module, name) not in self._SAFE:
            raise RefusedPickle(
                f"{self._name}: wants {module}.{name}, which is refused, because a pickle can run code with it; only "
                f"plain containers, numbers and arrays are read"
            )
        return self._SAFE[module, name]

    def persistent_load(self, pid: object) -> NoReturn:
        """Refuse references to objects outside the file."""
        raise RefusedPickle(f"{self._name}: refers to an object outside the file, which is refused")
