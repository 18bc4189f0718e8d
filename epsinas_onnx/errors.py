"""Every error that epsinas-onnx raises on purpose, each one sentence for a person.

EpsinasError
├── UsageError            the call is wrong, whatever the file: constants, options, given inputs     exit code 2
│   └── MissingRuntime    no ONNX Runtime is installed                                               exit code 2
├── ModelError            this file cannot be read or run; other files of a batch go on              exit code 3
│   ├── ShapeError        a shape that is unknown, or does not fit the model
│   ├── UnsupportedError  an operator, domain or type that cannot be scored
│   ├── OutOfMemory       refused before it is allocated
│   └── RunError          ONNX Runtime refused the graph or failed in it
├── ClusterError         a cluster was lost, or gives no worker; what it scored is kept                exit code 3
└── OutputError           a result cannot be written, such as on a full disk                         exit code 4
"""

from __future__ import annotations

from epsinas_onnx._util.text import sentence


class EpsinasError(Exception):
    """Base of all errors of this package; `exit_code` is what the command line ends with.

    A message is one printable line, and short: names out of a file may hold or be anything.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(sentence(message))


class UsageError(EpsinasError):
    """The call itself is wrong, for any file."""

    exit_code = 2


class MissingRuntime(UsageError):
    """ONNX Runtime, or the provider asked for, is not installed."""


class ModelError(EpsinasError):
    """The model cannot be read, understood or run."""

    exit_code = 3


class ShapeError(ModelError):
    """A shape is unknown where it is needed, or does not fit."""


class UnsupportedError(ModelError):
    """The model uses something that cannot be scored."""


class OutOfMemory(ModelError):
    """The model needs more memory than there is; nothing was allocated."""


class RunError(ModelError):
    """ONNX Runtime refused the graph, or failed while it ran."""


class ClusterError(EpsinasError):
    """A cluster was lost, or nothing starts on it; what it had scored until then was yielded."""

    exit_code = 3


class OutputError(EpsinasError):
    """A result could not be written; what was there before is as it was."""

    exit_code = 4
