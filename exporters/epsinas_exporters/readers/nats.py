"""Reads NATS-Bench (Dong et al., TPAMI 2021) and NAS-Bench-201 (ICLR 2020): pickles, folders of them, .pth files."""

from __future__ import annotations

import bz2
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from epsinas_exporters.readers.restricted import array_functions, restricted_load
from epsinas_onnx._util.install import pip_install

_SPLITS = {
    "cifar10_valid": ("cifar10-valid", "x-valid"),
    "cifar10_test": ("cifar10", "ori-test"),
    "cifar100_valid": ("cifar100", "x-valid"),
    "cifar100_test": ("cifar100", "x-test"),
    "imagenet16_120_valid": ("ImageNet16-120", "x-valid"),
    "imagenet16_120_test": ("ImageNet16-120", "x-test"),
}
"""Columns, and the data set and split that the benchmark stores their accuracies under."""
_EPOCHS = {"less": 12, "full": 200}
"""Epochs of NAS-Bench-201's two trainings; NATS-Bench names its own by their number."""
_KEYS = ("meta_archs", "arch2infos")


def read_nats(path: Path) -> list[dict[str, str]]:
    """Return a row for each evaluated architecture, in the benchmark's order.

    path: a `.pickle.pbz2` or `.pth` file of a whole benchmark, or the folder `NATS-...-simple` with `meta.pickle.pbz2`
    and a file for each architecture. Accuracies are in percent, after the last epoch of the longest training, means
    over its seeds.

    Raises ValueError where a file is broken or of another kind, ImportError without torch for a .pth file.
    """
    rows = [_row(arch, trainings, str(path)) for arch, trainings in _architectures(path)]
    if not rows:
        raise ValueError(f"{path}: holds no evaluated architecture")
    return rows


def _architectures(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each architecture's text with its trainings."""
    if path.is_dir():
        meta = path / "meta.pickle.pbz2"
        if not meta.exists():
            raise ValueError(
                f"{path}: has no meta.pickle.pbz2, which lists the architectures; is it a NATS-Bench folder?"
            )
        archs = _checked(_load(meta), meta, _KEYS[:1])["meta_archs"]
        for file in sorted(path.glob("[0-9]*.pickle.pbz2")):
            index = int(file.name.split(".")[0])
            if index >= len(archs):
                raise ValueError(f"{file}: there are only {len(archs)} architectures in {meta.name}")
            yield archs[index], _checked(_load(file), file, ())
        return
    data = _checked(_load(path), path, _KEYS)
    for index, trainings in sorted(data["arch2infos"].items()):
        yield data["meta_archs"][index], trainings


def _load(path: Path) -> Any:
    if path.suffix in (".pth", ".pt"):
        return _load_torch(path)
    with bz2.open(path) if path.suffix == ".pbz2" else path.open("rb") as file:
        return restricted_load(file, str(path))


def _load_torch(path: Path) -> Any:
    """Read a .pth file with torch's own restricted unpickler, which builds tensors and containers alone."""
    try:
        import torch
    except ImportError:
        raise ImportError(
            f"{path}: reading .pth files needs torch; run '{pip_install('torch')}', or take the "
            f"benchmark's .pickle.pbz2 file"
        ) from None
    import numpy as np

    # Accuracies may be NumPy numbers; NumPy's module had another name before NumPy 2.
    numbers: list[Any] = [np.dtype, *{type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")}]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        numbers += [(function, f"{module}.{name}") for name, function in array_functions().items()]
    try:
        with torch.serialization.safe_globals(numbers):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for files that are cut off, or that it refuses
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path}: torch cannot read it, or refuses what is in it: {first}") from None


def _checked(data: Any, path: Path, keys: tuple[str, ...]) -> Any:
    missing = [key for key in keys if not isinstance(data, Mapping) or key not in data]
    if missing or not isinstance(data, Mapping):
        what = f"lacks {', '.join(missing)}" if missing else "holds no results"
        raise ValueError(f"{path}: {what}; it is no file of NATS-Bench or NAS-Bench-201")
    return data


def _row(arch: str, trainings: Mapping[str, Any], name: str) -> dict[str, str]:
    try:
        longest = max(trainings, key=lambda key: _EPOCHS.get(key) or int(key))
        results = trainings[longest]["all_results"]
        runs: dict[str, list[Mapping[str, Any]]] = {}
        for (dataset, _seed), run in results.items():
            runs.setdefault(dataset, []).append(run)
        row = {"arch": str(arch)}
        for column, (dataset, split) in _SPLITS.items():
            found = [value for run in runs.get(dataset, []) if (value := _accuracy(run, split)) is not None]
            row[column] = repr(fmean(found)) if found else ""
        sizes = [run["params"] for run in runs.get("cifar10", []) or next(iter(runs.values()), [])]
        row["params"] = str(round(1e6 * fmean(sizes))) if sizes else ""  # stored in millions
        return row
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{name}: the results of {arch} are not of the benchmark's form ({type(error).__name__}: {error})"
        ) from None


def _accuracy(run: Mapping[str, Any], split: str) -> float | None:
    """Return the accuracy of the last epoch that was evaluated on a split; None where none was."""
    epochs = [int(key.rpartition("@")[2]) for key in run["eval_acc1es"] if key.rpartition("@")[0] == split]
    return float(run["eval_acc1es"][f"{split}@{max(epochs)}"]) if epochs else None
