"""What is known of a model, as data: fingerprint, sizes, counts, status and score."""

from __future__ import annotations

from dataclasses import dataclass

from epsinas_onnx.scoring.result import Status


@dataclass(frozen=True)
class Facts:
    """What is known of a model; None where it could not be found out, or where nobody asked for the score.

    Attributes:
        fingerprint: of the graph without weights, names and node order, in hexadecimal digits.
        size: bytes of the file, and of its external data.
        parameters: elements of all learned tensors.
        multiply_adds: of convolutions, matrix products, attention and recurrences, for one sample.
        opset: version of the standard operator set.
        status: whether there is a score, and if not, why.
        score: the normalised dispersion, None unless the status is `ok`.
    """

    fingerprint: str | None = None
    size: int | None = None
    parameters: int | None = None
    multiply_adds: int | None = None
    opset: int | None = None
    status: Status | None = None
    score: float | None = None
