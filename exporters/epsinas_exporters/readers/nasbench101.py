"""Reads NAS-Bench-101's .tfrecord files (Ying et al., ICML 2019) without TensorFlow."""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from epsinas_onnx._util.install import pip_install

_LONGEST = 2**24  # bytes of a record; the benchmark's have some 400
_MASK = 0xA282EAD8

_Runs = dict[int, list[tuple[float, float]]]


def read_tfrecord(path: Path) -> list[dict[str, str]]:
    """Return a row for each cell: `hash`, `adjacency` (0 and 1, row by row), `ops`, `params`, and accuracies.

    Accuracies are shares of 1, means over the repetitions of a training, after its last epoch: `val_accuracy_108`,
    `test_accuracy_108` and so on for every length of training in the file, the shortest first.

    Raises ValueError with the number and the place of the first record that is cut off or damaged, and ImportError
    without google-crc32c, which checks the records.
    """
    cells: dict[str, tuple[str, str, int]] = {}
    runs: dict[str, _Runs] = {}
    for number, (place, data) in enumerate(_records(path), start=1):
        try:
            digest, epochs, adjacency, operations, encoded = json.loads(data)
            metrics = _metrics_type().FromString(base64.b64decode(encoded))
            last = metrics.evaluation_data[-1]
        except (ValueError, TypeError, IndexError, binascii.Error) as error:
            raise ValueError(f"{path}: record {number} at byte {place} is none of NAS-Bench-101: {error}") from None
        except Exception as error:  # protobuf raises an error of its own for each implementation
            raise ValueError(f"{path}: record {number} at byte {place} holds damaged metrics: {error}") from None
        cells[digest] = (adjacency, operations, metrics.trainable_parameters)
        accuracies = (last.validation_accuracy, last.test_accuracy)
        runs.setdefault(digest, {}).setdefault(int(epochs), []).append(accuracies)
    if not cells:
        raise ValueError(f"{path}: holds no records")
    lengths = sorted({epochs for found in runs.values() for epochs in found})
    return [_row(digest, *cell, runs[digest], lengths) for digest, cell in cells.items()]


def _row(
    digest: str, adjacency: str, operations: str, parameters: int, runs: _Runs, lengths: list[int]
) -> dict[str, str]:
    row = {"hash": digest, "adjacency": adjacency, "ops": operations, "params": str(parameters)}
    for epochs in lengths:
        found = runs.get(epochs, [])
        for place, split in enumerate(("val", "test")):
            row[f"{split}_accuracy_{epochs}"] = repr(fmean(run[place] for run in found)) if found else ""
    return row


def _records(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the byte where each record begins, and what it holds; checks both of its checksums.

    A record is its length (8 bytes, little-endian), the masked CRC-32C of those, the data, and the data's masked
    CRC-32C. Source: TensorFlow's documentation of the TFRecord format.
    """
    crc32c = _checksum(path)
    place = number = 0
    with path.open("rb") as file:
        while head := file.read(12):
            number += 1
            where = f"{path}: record {number} at byte {place}"
            if len(head) < 12:
                raise ValueError(f"{where} is cut off; fetch the file again")
            length, check = struct.unpack("<QI", head)
            if _masked(crc32c(head[:8])) != check:
                raise ValueError(f"{where} has a wrong checksum; it is damaged, or no TFRecord")
            if length > _LONGEST:
                raise ValueError(f"{where} says that it is {length:,} bytes long, which no record of NAS-Bench-101 is")
            body = file.read(length + 4)
            if len(body) < length + 4:
                raise ValueError(f"{where} is cut off; fetch the file again")
            data = body[:length]
            if _masked(crc32c(data)) != struct.unpack("<I", body[length:])[0]:
                raise ValueError(f"{where} has a wrong checksum of its data; fetch the file again")
            yield place, data
            place += length + 16


def _checksum(path: Path) -> Any:
    try:
        from google_crc32c import value
    except ImportError:
        raise ImportError(
            f"{path}: reading .tfrecord files needs google-crc32c; run '{pip_install('benchmarks')}'"
        ) from None
    return value


def _masked(crc: int) -> int:
    """Return a CRC as TFRecord stores it: rotated right by 15 bits, plus a constant."""
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


@cache
def _metrics_type() -> Any:
    """Return the class of the benchmark's message ModelMetrics, as its model_metrics.proto numbers the fields."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="epsinas/model_metrics.proto", package="nasbench", syntax="proto2")
    evaluation = file.message_type.add(name="EvaluationData")
    doubles = ("current_epoch", "training_time", "train_accuracy", "validation_accuracy", "test_accuracy")
    for number, name in enumerate(doubles, start=1):
        evaluation.field.add(name=name, number=number, type=kinds.TYPE_DOUBLE, label=kinds.LABEL_OPTIONAL)
    evaluation.field.add(name="checkpoint_path", number=6, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    metrics = file.message_type.add(name="ModelMetrics")
    metrics.field.add(
        name="evaluation_data", number=1, type=kinds.TYPE_MESSAGE, label=kinds.LABEL_REPEATED,
        type_name=".nasbench.EvaluationData",
    )  # fmt: skip
    metrics.field.add(name="trainable_parameters", number=2, type=kinds.TYPE_INT32, label=kinds.LABEL_OPTIONAL)
    metrics.field.add(name="total_time", number=3, type=kinds.TYPE_DOUBLE, label=kinds.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("nasbench.ModelMetrics"))
