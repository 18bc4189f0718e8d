"""Reads the minibatches that a user gives: arrays, .npy and .npz files, and folders of images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from epsinas_onnx._util.install import pip_install
from epsinas_onnx.errors import ShapeError, UsageError
from epsinas_onnx.graph.analysis.input_spec import InputSpec
from epsinas_onnx.graph.analysis.shapes import dims_text, fits

Array = npt.NDArray[Any]
IMAGE_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff"})


def read_given(given: object) -> dict[str, Array] | Path:
    """Return a user's arrays by input name (`""` for an array without a name), or the folder of images.

    given: an array, a mapping of input name to array or .npy path, a .npy or .npz path, or a folder.
    Raises UsageError when a file is missing or no array, and when an array holds NaN or infinities.
    """
    if isinstance(given, Mapping):
        arrays = {str(key): _array(value) for key, value in given.items()}
    elif isinstance(given, (str, os.PathLike)):
        path = Path(given)
        if path.is_dir():
            return path
        arrays = _load(path)
    else:
        arrays = {"": _array(given)}
    if not arrays:
        raise UsageError("the given input holds no arrays")
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise UsageError(
                f"the given input{f' {name!r}' if name else ''} holds {bad} NaN or infinite entries of {array.size}; "
                f"clean it first"
            )
    return arrays


def given_names(given: object) -> frozenset[str]:
    """Return the names that a user's arrays have, where they have any; what cannot be read has none."""
    if isinstance(given, Mapping):
        return frozenset(map(str, given))
    if isinstance(given, (str, os.PathLike)) and Path(given).suffix == ".npz":
        try:
            with np.load(given, allow_pickle=False) as loaded:
                return frozenset(loaded.files)
        except (OSError, ValueError, EOFError):
            return frozenset()
    return frozenset()


def _array(value: object) -> Array:
    if isinstance(value, (str, os.PathLike)):
        arrays = _load(Path(value))
        if len(arrays) != 1:
            raise UsageError(f"the file {os.fspath(value)} holds {len(arrays)} arrays, and one input takes one")
        return next(iter(arrays.values()))
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        array = np.asarray(None)
    if array.dtype == object:
        raise UsageError("a given input is no rectangular array of numbers")
    return array


def _load(path: Path) -> dict[str, Array]:
    try:
        loaded = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UsageError(f"the input {str(path)!r} is neither a known kind of input nor a file that exists") from None
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"the input file {path} is no .npy or .npz file of plain arrays ({error})") from None
    if isinstance(loaded, np.ndarray):
        return {"": loaded}
    with loaded:
        return {key: loaded[key] for key in loaded.files}


def fit(arrays: Mapping[str, Array], specs: Sequence[InputSpec], name: str) -> dict[str, Array]:
    """Return the given arrays by input name, checked against the model and cast to its element types.

    A nameless array, or the only array of a file, goes to the first input. Raises ShapeError when a name or a shape
    does not fit, or integers are given where the model wants floats.
    """
    known = {spec.name: spec for spec in specs}
    if len(arrays) == 1 and next(iter(arrays)) not in known and specs:
        arrays = {specs[0].name: next(iter(arrays.values()))}
    fitted = {}
    for key, array in arrays.items():
        spec = known.get(key)
        if spec is None:
            raise ShapeError(f"{name}: an array was given for {key!r}, and the model's inputs are {', '.join(known)}")
        if not fits(array.shape, spec.declared, spec.batch_axis):
            raise ShapeError(
                f"{name}: the given array has the shape {list(array.shape)}, which does not fit input {key!r}, "
                f"declared as [{dims_text(spec.declared)}]"
            )
        wanted = spec.dtype.numpy()
        if array.dtype.kind != "f" and spec.dtype.is_floating_point():
            raise ShapeError(
                f"{name}: the given array holds {array.dtype}, and input {key!r} takes {np.dtype(wanted)}; normalise "
                f"it to floats first"
            )
        fitted[key] = np.asarray(array, dtype=wanted, order="C")  # ascontiguousarray would make a vector of a scalar
    return fitted


def image_files(folder: Path) -> list[Path]:
    """Return the image files below `folder`, in the order of their names; raises UsageError when there are none."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_ENDINGS)
    if not files:
        raise UsageError(f"the folder {folder} holds no images ({', '.join(sorted(IMAGE_ENDINGS))})")
    return files


def read_images(folder: Path, spec: InputSpec, batch: int, name: str) -> Array:
    """Return up to `batch` images of `folder`, in the order of their names, as an array for `spec`.

    Each image is resized to the input's height and width and scaled to [0, 1] (uint8 inputs keep 0 to 255).
    Raises ShapeError when the input takes no images, UsageError when there are none or Pillow is missing.
    """
    layout = spec.layout
    if layout is None:
        raise ShapeError(f"{name}: images were given, and input {spec.name!r} takes {list(spec.shape)}, not images")
    try:
        from PIL import Image
    except ImportError as error:
        raise UsageError(f"reading images needs Pillow; run '{pip_install('images')}'") from error
    files = image_files(folder)[:batch]
    channels_first = layout == "NCHW"
    height, width = spec.shape[2:] if channels_first else spec.shape[1:3]
    channels = spec.shape[1] if channels_first else spec.shape[3]
    rows = []
    for path in files:
        try:
            with Image.open(path) as image:
                mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
                rows.append(np.asarray(image.convert(mode).resize((width, height))).reshape(height, width, channels))
        except OSError as error:
            raise UsageError(f"the image {path} cannot be read ({error})") from None
    images = np.stack(rows)
    if spec.dtype.is_floating_point():
        images = images.astype(np.float32) / 255
    if channels_first:
        images = images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images.astype(spec.dtype.numpy()))
