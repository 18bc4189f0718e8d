"""What is known of a model, as data: fingerprint, sizes, counts, status and score."""

from __future__ import annotations

from dataclasses import dataclass

from epsinas_onnx.scoring.result import Status


@dataclass(frozen=True)
class Facts:
    """What is known of a model; None where it could not be found out, or where nobody asked for the score.

    fingerprint: of the weightless graph, see `epsinas_onnx.graph.fingerprint`. size: bytes of the file, and of
    its external data. parameters: elements of all learned tensors. multiply_adds: of convolutions, matrix products
    and recurrences, for one sample. opset: of the standard domain. status, score: see `epsinas_onnx.scoring.result`.
    """

    fingerprint: str | None = None
    size: int | None = None
    parameters: int | None = None
    multiply_adds: int | None = None
    opset: int | None = None
    status: Status | None = None
    score: float | None = None
