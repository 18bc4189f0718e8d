"""Reads the files that benchmarks publish, as tables with a row for each architecture."""

from __future__ import annotations

import os
from pathlib import Path

Row = dict[str, str]

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_PICKLES = (".pbz2", ".pickle", ".pkl")
_ENDINGS = (".tfrecord", ".pth", ".pt", *_PICKLES, *_ARCHIVES)


def is_benchmark_file(path: str | os.PathLike[str]) -> bool:
    """Return whether `read_benchmark` takes `path`: a folder, or a file with the ending of a benchmark's own."""
    return Path(path).is_dir() or Path(path).name.lower().endswith(_ENDINGS)


def read_benchmark(path: str | os.PathLike[str]) -> list[Row]:
    """Return a row for each architecture of a benchmark's own file, values as a CSV would hold them.

    NATS-Bench (.pickle.pbz2, or the folder with a file for each architecture) and NAS-Bench-201 (.pth, which needs
    torch): `arch`, accuracies in percent after the longest training such as `cifar10_test`, means over all seeds, and
    `params`. NAS-Bench-101 (.tfrecord): `hash`, `adjacency`, `ops`, `params`, and for every length of training
    `val_accuracy_108` and its kin, means over the repetitions. NAS-Bench-NLP (a folder or archive of JSON logs):
    `log_name`, `status`, `num_params`, `test_loss`, `val_loss` after the last epoch, `recepie`.

    Values that a file lacks are "". Pickles are read with a restricted unpickler: nothing in them is run.

    Raises ValueError with one sentence where the file is missing, cut off, or not what its ending says; ImportError
    with one where a library is missing.
    """
    file = Path(path)
    name = file.name.lower()
    if not file.exists():
        raise ValueError(f"{file}: there is no such file or folder")
    if name.endswith(".tfrecord"):
        from epsinas_exporters.readers.nasbench101 import read_tfrecord

        return read_tfrecord(file)
    if name.endswith((".pth", ".pt", *_PICKLES)) or (file.is_dir() and any(file.glob("*.pbz2"))):
        from epsinas_exporters.readers.nats import read_nats

        return read_nats(file)
    if file.is_dir() or name.endswith(_ARCHIVES):
        from epsinas_exporters.readers.nasbenchnlp import read_logs

        return read_logs(file)
    raise ValueError(f"{file}: no benchmark publishes files with such an ending; known are {', '.join(_ENDINGS)}")
