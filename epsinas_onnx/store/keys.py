"""What results are kept under beside the network: everything that changes a number, as digests."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from epsinas_onnx.inputs.given import image_files, read_given
from epsinas_onnx.inputs.minibatch import is_kind
from epsinas_onnx.runtime.providers import choose_providers, provider_name
from epsinas_onnx.scoring.options import ScoreOptions
from epsinas_onnx.versions import versions

_COMMON = ("inputs", "seed", "shapes", "outputs", "roles", "restore_batchnorm", "provider", "versions")
"""What other scores depend on too, which have no constants."""
NO_PART = frozenset({"threads", "jobs", "device_memory", "proxies", "proxy_batch", "alike"})
"""Options that change no number but by rounding, and those that say which other scores are asked for."""


@dataclass(frozen=True)
class Settings:
    """What results are kept under. key: of scores; common: of other scores, beside `proxy_batch` and their names.

    text: all that counts, as JSON. names_nothing: whether no option names a part of a network, so that a network whose
    parts are called otherwise has the same score.
    """

    key: str
    common: str
    text: str
    proxy_batch: int
    names_nothing: bool

    @classmethod
    def of(cls, options: ScoreOptions) -> Settings:
        """Return the settings that checked options are; given arrays and images are read.

        Raises UsageError where what is given cannot be read, or a provider is not there.
        """
        values = {f.name: getattr(options, f.name) for f in dataclasses.fields(options) if f.name not in NO_PART}
        del values["providers"]  # `auto` is another one on another machine
        values["provider"] = provider_name(choose_providers(options.providers)[0])
        values["weights"] = [repr(weight) for weight in options.weights]
        values["inputs"] = inputs_digest(options.inputs, max(options.batch, options.proxy_batch))
        values["seed"] = int(options.seed)
        values["shapes"] = {name: _sizes(size) for name, size in options.shapes.items()}
        values["roles"] = list(options.roles.items())  # the first pattern that matches wins
        values["versions"] = dict(versions())
        text = _json(values)
        unnamed = not (options.shapes or options.outputs or options.roles) and isinstance(values["inputs"], str)
        return cls(
            key=digest(text), common=digest(_json({name: values[name] for name in _COMMON})), text=text,
            proxy_batch=options.proxy_batch, names_nothing=unnamed and options.restore_batchnorm in ("auto", "none"),
        )  # fmt: skip


def inputs_digest(inputs: Any, most: int) -> str | Mapping[str, str]:
    """Return a kind of input, the digest of the first `most` images of a folder, or one for each given array by name.

    Arrays count by element type, shape and content, wherever they lie; images by the bytes of their files, in the order
    of the files' names.
    """
    if is_kind(inputs):
        return str(inputs)
    given = read_given(inputs)
    if isinstance(given, Path):
        return {"images": digest(*(hashlib.sha256(file.read_bytes()).digest() for file in image_files(given, most)))}
    found = {}
    for name, array in given.items():
        data = np.ascontiguousarray(array)
        found[f"array {name}"] = digest(f"{data.dtype.str}{list(array.shape)}", data.tobytes())
    return found


def digest(*parts: str | bytes) -> str:
    """Return 32 hexadecimal digits of the SHA-256 of the parts, each told from the next."""
    hashed = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        hashed.update(len(data).to_bytes(8, "big"))
        hashed.update(data)
    return hashed.hexdigest()[:32]


def _sizes(size: Any) -> Any:
    return int(size) if isinstance(size, int | np.integer) else [int(one) for one in size]


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
