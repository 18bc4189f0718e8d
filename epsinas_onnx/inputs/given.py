"""Reads the minibatches that a user gives: arrays, .npy and .npz files, and folders of images."""

from __future__ import annotations

import heapq
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from epsinas_onnx._util.install import pip_install
from epsinas_onnx.errors import ShapeError, UsageError
from epsinas_onnx.graph.analysis.input_spec import InputSpec
from epsinas_onnx.graph.analysis.shapes import dims_text, fits
from epsinas_onnx.inputs.arrays import array_names, read_arrays

Array = npt.NDArray[Any]
IMAGE_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff"})
_NO_NUMBERS = frozenset("OSUMmc")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_MOST_PIXELS = 2**27
"""Pixels of the largest image that is decoded: a few kilobytes may say that they are gigabytes."""


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
        arrays = read_arrays(path)
    else:
        arrays = {"": _array(given)}
    if not arrays:
        raise UsageError("the given input holds no arrays")
    for name, array in arrays.items():
        if array.dtype.kind in _NO_NUMBERS or array.dtype.fields:
            raise UsageError(
                f"the given input{f' {name!r}' if name else ''} holds {array.dtype}, and only numbers can be fed"
            )
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
        return array_names(Path(given))
    return frozenset()


def _array(value: object) -> Array:
    if isinstance(value, (str, os.PathLike)):
        arrays = read_arrays(Path(value))
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


def image_files(folder: Path, most: int) -> list[Path]:
    """Return the first `most` image files below `folder`, in the order of their names.

    Raises UsageError when there are none, or a folder cannot be read.
    """
    try:
        files = heapq.nsmallest(most, images_below(folder))
    except OSError as error:
        raise UsageError(f"the folder {error.filename or folder} cannot be read: {error.strerror or error}") from None
    if not files:
        raise UsageError(f"the folder {folder} holds no images ({', '.join(sorted(IMAGE_ENDINGS))})")
    return files


def images_below(folder: Path) -> Iterator[Path]:
    """Yield image files one by one, since a folder may hold millions."""
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(Path(entry.path))
                elif Path(entry.name).suffix.lower() in IMAGE_ENDINGS and entry.is_file():
                    yield Path(entry.path)


def read_images(folder: Path, spec: InputSpec, batch: int, name: str) -> Array:
    """Return up to `batch` images of `folder`, in the order of their names, as an array for `spec`.

    Each image is resized to the input's height and width and scaled to [0, 1] (uint8 inputs keep 0 to 255).
    Raises ShapeError when the input takes no images, UsageError when there are none or Pillow is missing.
    """
    layout = spec.layout
    channels = spec.shape[1 if layout == "NCHW" else 3] if layout else 0
    mode = _MODES.get(channels)
    if mode is None:
        raise ShapeError(f"{name}: images were given, and input {spec.name!r} takes {list(spec.shape)}, not images")
    channels_first = layout == "NCHW"
    height, width = spec.shape[2:] if channels_first else spec.shape[1:3]
    rows = [_read_image(path, mode, (width, height)) for path in image_files(folder, batch)]
    images = np.stack(rows).reshape(len(rows), height, width, channels)
    if spec.dtype.is_floating_point():
        images = images.astype(np.float32) / 255
    if channels_first:
        images = images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images.astype(spec.dtype.numpy()))


def _read_image(path: Path, mode: str, size: tuple[int, int]) -> Array:
    try:
        from PIL import Image
    except ImportError as error:
        raise UsageError(f"reading images needs Pillow; run '{pip_install('images')}'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # has a limit of its own, which is lower
            with Image.open(path) as image:
                if image.width * image.height > _MOST_PIXELS:
                    raise UsageError(
                        f"the image {path} has {image.width} x {image.height} pixels, and {_MOST_PIXELS:,} is the most "
                        f"that is read"
                    )
                return np.asarray(image.convert(mode).resize(size))
    except UsageError:
        raise
    except Exception as error:  # Pillow raises what it likes for damaged files
        raise UsageError(f"the image {path} cannot be read ({' '.join(str(error).split())})") from None
