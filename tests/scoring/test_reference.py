"""Scores against those of the published code: ../shared/reference and the published column of ../shared/data."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epsinas_exporters.spaces import nasbench101, nasbench201, nasbenchnlp
from epsinas_onnx import Score, Status, score
from epsinas_onnx.inputs.generate import grey_ramp

SHARED = Path(__file__).parents[3] / "shared"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the reference data in ../shared is not here")

RELATIVE = 1e-4
EVERY = 7
"""One of so many plain graphs is in every run, and of the published networks."""

# The references are float32's own rounding, and not exact to 1e-4 where scores are small: min and max are single
# roundings that move every normalised entry. PyTorch in float64 is up to 1.4e-5 from them (0.03331 and 0.03332), the
# lumped graph, which sums equal channels without rounding, within 3e-6 of float64. The plain graph depends on the
# processor: with AVX-512 it is within 1e-4 of each reference, without it (an EPYC with AVX2, where PyTorch's float32
# gives the references to 1e-8) on float64's side, and up to 1.9e-5 away.
ROUNDED = 2.5e-5


def normalised_cifar(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    mean = np.array([125.3, 123.0, 113.9], np.float32) / 255
    deviation = np.array([63.0, 62.1, 66.7], np.float32) / 255
    scaled = (images.astype(np.float32) / 255 - mean) / deviation
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), dtype=np.float32)


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray[Any, Any]]:
    with np.load(SHARED / "data" / "cifar10_images.npz") as file:
        return {
            "cifar64": normalised_cifar(file["first64"]),
            "batch256": normalised_cifar(file["batch256"]),
            "cifar64[:16]": normalised_cifar(file["first64"][:16]),
            "grey64": grey_ramp((64, 3, 32, 32), 0),
            "grey16": grey_ramp((16, 3, 32, 32), 0),
        }


def published_procedure(model: Any, weights: Any, inputs: Any, lump: bool) -> Score:
    return score(
        model, weights=weights, inputs=inputs, providers="cpu", threads=1, lump=lump, arithmetic="float32"
    )  # fmt: skip


def records(space: str) -> list[dict[str, Any]]:
    path = SHARED / "reference" / f"{space}.json"
    return json.loads(path.read_text()) if path.exists() else []  # type: ignore[no-any-return]


def each_way(space: str, name: Callable[[dict[str, Any]], str], slow: Container[str] = ()) -> Iterator[Any]:
    """Yield all references of a space, lumped and plain; most plain graphs, which take far longer, are exhaustive.

    slow: logs whose plain graphs are slow tests instead.
    """
    for number, record in enumerate(records(space)):
        yield pytest.param(record, True, id=f"{name(record)}-lumped")
        rarely = pytest.mark.slow if record.get("log") in slow else pytest.mark.exhaustive
        yield pytest.param(record, False, id=f"{name(record)}-plain", marks=[rarely] if number % EVERY else [])


def of_nasbench201(record: dict[str, Any]) -> str:
    cell = nasbench201.file_name(record["arch"]).removesuffix(".onnx")
    return f"{cell}-{record['input']}-{record['weights'][0]:g}"


@pytest.mark.parametrize(("record", "lump"), list(each_way("nasbench201", of_nasbench201)))
def test_reference_scores_are_met_and_nulls_are_unscored(
    record: dict[str, Any], lump: bool, images: dict[str, np.ndarray[Any, Any]]
) -> None:
    model = nasbench201.build(record["arch"])
    weights = tuple(record["weights"])
    result = published_procedure(model, weights, images[record["input"]], lump)
    if record["score"] is None:
        assert result.status is not Status.OK
        assert result.score is None
    else:
        assert result.status is Status.OK, result.reason
        tolerance = max(ROUNDED, RELATIVE * record["score"])
        assert result.score == pytest.approx(record["score"], rel=0, abs=tolerance)


@pytest.mark.parametrize(
    ("record", "lump"), list(each_way("nasbench101", lambda record: f"{record['hash'][:6]}-{record['input']}"))
)
def test_reference_scores_of_nasbench101_are_met_and_nulls_are_unscored(
    record: dict[str, Any], lump: bool, images: dict[str, np.ndarray[Any, Any]]
) -> None:
    model = nasbench101.build(json.dumps({"matrix": record["matrix"], "ops": record["ops"]}))
    weights = tuple(record["weights"])
    result = published_procedure(model, weights, images[record["input"]], lump)
    assert (result.status is Status.OK) == (record["score"] is not None), result.reason
    if record["score"] is not None:
        assert result.score == pytest.approx(record["score"], rel=RELATIVE, abs=0)


@pytest.fixture(scope="module")
def embedding() -> np.ndarray[Any, Any]:
    torch = pytest.importorskip("torch", reason="the references of NAS-Bench-NLP drew their embedding with PyTorch")
    torch.manual_seed(21)
    return torch.empty(10_000, 400).uniform_().numpy()  # type: ignore[no-any-return]


# How far PyTorch itself is from these references, relatively: in float32 by the order in which a cell's products and
# bias are added, and in float64. Their outputs vary so little that rounding decides the score's fourth digit, or the
# first: the last one's varies by 9e-6 of itself for the constant 1e-5, and float64 gives 0.427 where the reference is
# 0.581. The plain graph calls that one noise.
ROUNDING = {
    "log_stats_model_2006392_2020-05-11_23-39-10_999989057.json": 2e-4,
    "log_stats_model_2004844_2020-05-13_07-02-52_999915029.json": 2e-4,
    "log_stats_model_2006306_2020-05-10_21-22-22_999902241.json": 2.5e-3,
    "log_stats_model_1008622_2020-04-20_13-54-52_999990323.json": 8e-3,
    "log_stats_model_2011117_2020-05-11_17-45-02_999943941.json": 0.27,
}
ROUNDED_AWAY = list(ROUNDING)[-1]


@pytest.mark.parametrize(
    ("record", "lump"), list(each_way("nasbenchnlp", lambda record: record["log"].split("_")[3], slow=ROUNDING))
)
def test_reference_scores_of_nasbenchnlp_are_met(
    record: dict[str, Any], lump: bool, embedding: np.ndarray[Any, Any]
) -> None:
    tokens = np.random.RandomState(0).randint(0, 10_000, (70, 32))
    model = nasbenchnlp.build(json.dumps(record["recepie"]), embedding=embedding)
    weights = tuple(record["weights"])
    result = published_procedure(model, weights, tokens.T, lump)
    if record["log"] == ROUNDED_AWAY and not lump:
        assert result.status is Status.NOISE
        return
    assert result.status is Status.OK, result.reason
    relative = ROUNDING.get(record["log"], 1e-3 if record["score"] < 0.05 else RELATIVE)
    assert result.score == pytest.approx(record["score"], rel=relative, abs=0)


def published() -> list[dict[str, str]]:
    path = SHARED / "data" / "nasbench201.csv.gz"
    if not path.exists():
        return []
    with gzip.open(path, "rt") as file:
        return list(itertools.islice(csv.DictReader(file), 0, 512, EVERY))


def scored_on_cifar(arch: str, batch: np.ndarray[Any, Any]) -> Score:
    return score(nasbench201.build(arch), inputs=batch, providers="cpu", threads=1)


@pytest.mark.parametrize("row", published(), ids=lambda row: row["index"])
def test_the_published_column_says_which_of_the_first_are_scored(
    row: dict[str, str], images: dict[str, np.ndarray[Any, Any]]
) -> None:
    result = scored_on_cifar(row["arch"], images["batch256"])
    assert result.float32_status is not None
    assert (result.float32_status is Status.OK) == bool(row["cifar10_epsinas_published"]), result.reason
    assert (result.status is Status.OK) == (result.float32_status is not Status.CONSTANT)
    # The published scores were computed on another minibatch, so they agree in size only.
    if result.float32_status is Status.OK:
        assert result.score == pytest.approx(float(row["cifar10_epsinas_published"]), rel=0.35, abs=1e-3)
    assert result.parameters == int(row["nparams"])


def test_architectures_come_in_the_index_order_of_the_benchmark() -> None:
    with gzip.open(SHARED / "data" / "nasbench201.csv.gz", "rt") as file:
        expected = [row["arch"] for row in csv.DictReader(file)]
    assert nasbench201.architectures() == expected
