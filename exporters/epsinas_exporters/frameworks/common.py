"""What the exporters of all frameworks share: finding a network by its name, and leaving its weights out."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from epsinas_exporters.frameworks import ExportError, ExportWarning
from epsinas_onnx.edit.strip import strip
from epsinas_onnx.errors import EpsinasError


def find(text: str) -> Any:
    """Return what `package.module:attribute` names; a module of the user's own is found where they are.

    Raises ExportError where there is no such thing.
    """
    source, colon, name = text.rpartition(":")
    if not colon or not source or not name:
        raise ExportError(f"{text!r} names no network; write package.module:factory")
    sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(source)
        for part in name.split("."):
            found = getattr(found, part)
    except AttributeError:
        raise ExportError(f"{text}: {source} has no {name!r}") from None
    except ImportError as error:
        raise ExportError(f"{text}: {error}; install it, or run where it can be imported") from None
    except Exception as error:  # the user's module may raise anything
        raise ExportError(f"{text}: {source} cannot be imported: {first_line(error)}") from error
    finally:
        sys.path.remove("")
    return found


def call(factory: Callable[[], Any], text: str) -> Any:
    """Call a factory of the user's; raises ExportError with what it raises."""
    try:
        return factory()
    except Exception as error:
        raise ExportError(f"{text} cannot be built: {first_line(error)}") from error


def takes_arguments(function: Callable[..., Any]) -> bool:
    """Whether a function cannot be called without arguments: a network itself, then, and not its factory."""
    is_class = isinstance(function, type)  # a metaclass may hide what its classes take
    try:
        parameters = list(inspect.signature(function.__init__ if is_class else function).parameters.values())[is_class:]
    except (TypeError, ValueError):
        return True
    return any(
        one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        for one in parameters
    )


def without_weights(proto: onnx.ModelProto, name: str) -> ir.Model:
    """Return a converter's result as a graph without weights, stack traces and leftovers, called `name`.

    Raises ExportError where the converter's result is no valid model.
    """
    try:
        model = ir.from_proto(strip(proto))
    except EpsinasError as error:
        raise ExportError(f"{name}: the converter's result cannot be read: {error}") from error
    RemoveUnusedNodesPass()(model)
    model.graph.name = name
    for value in model.graph.inputs:
        if value.shape is not None and len(value.shape) > 1 and isinstance(value.shape[0], ir.SymbolicDim):
            value.shape = ir.Shape(["batch", *value.shape[1:]])  # converters number it
    return model


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or of what caused it."""
    cause = error.__cause__ or error
    return next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)


def note(message: str) -> None:
    """Tell the user something about an export that succeeds."""
    warnings.warn(message, ExportWarning, stacklevel=3)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keep what converters print and warn about from the user's terminal."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(None),
        contextlib.redirect_stderr(None),
    ):
        warnings.simplefilter("ignore")
        yield
