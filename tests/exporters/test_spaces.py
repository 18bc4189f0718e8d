"""What holds for every search space, and the sizes, Macro and DARTS spaces against the benchmarks and torch modules."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epsinas_exporters import spaces
from epsinas_exporters.spaces import ArchitectureError, SearchSpace, darts, nasbenchmacro, nats_sss
from epsinas_onnx import score, score_many
from tests.exporters.filling import assert_same_as_torch, parameter_shapes

MACRO = Path(__file__).parents[3] / "shared" / "data" / "nasbenchmacro_cifar10.csv.gz"
EVERY = ["darts", "nasbench101", "nasbench201", "nasbenchmacro", "nasbenchnlp", "nats-sss"]
# Sizes with which a test does not wait for a network.
SMALL: dict[str, dict[str, int]] = {
    "darts": {"channels": 4, "layers": 5}, "nasbench101": {"channels": 8, "cells": 1},
    "nasbench201": {"channels": 4, "cells": 1}, "nasbenchmacro": {}, "nasbenchnlp": {"steps": 4, "hidden": 6},
    "nats-sss": {},
}  # fmt: skip


def learned(model: ir.Model) -> int:
    """Return how many numbers the parameters of a graph hold, running statistics left out."""
    shapes = parameter_shapes(ir.to_proto(model))
    return sum(int(np.prod(shape)) for name, shape in shapes.items() if not name.startswith("running"))


def test_the_spaces_are_found_by_their_entry_points() -> None:
    assert [name for name in spaces.names() if name in EVERY] == EVERY
    with pytest.raises(LookupError, match=r"no search space 'nasbench301'; known are .*darts"):
        spaces.get("nasbench301")


@pytest.mark.parametrize("name", EVERY)
def test_the_listed_sizes_are_those_of_the_network(name: str) -> None:
    space = spaces.get(name)
    assert space.sizes
    given = learned(space.build(space.form, **space.sizes))
    assert given == learned(space.build(space.form))
    for size, value in space.sizes.items():
        other = space.build(space.form, **{size: value + 2})
        assert learned(other) != given or size == "steps", size


class FromAnotherPackage:
    """Stands in for an installed entry point."""

    def __init__(self, load: Callable[[], Any]) -> None:
        self.load, self.value = load, "another.package:space"


def test_a_space_of_another_package_is_taken_as_instance_or_class(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ImportError("no module named 'jax'")

    entries = {
        "instance": FromAnotherPackage(nats_sss.NATSSizes), "class": FromAnotherPackage(lambda: nats_sss.NATSSizes),
        "other": FromAnotherPackage(lambda: object()), "broken": FromAnotherPackage(broken),
    }  # fmt: skip
    monkeypatch.setattr(spaces, "_entries", lambda: entries)
    spaces.get.cache_clear()
    try:
        assert isinstance(spaces.get("instance"), nats_sss.NATSSizes)
        assert isinstance(spaces.get("class"), nats_sss.NATSSizes)
        with pytest.raises(LookupError, match=r"'other' \(another\.package:space\) is no"):
            spaces.get("other")
        with pytest.raises(LookupError, match=r"'broken' of another\.package:space cannot be loaded: no module"):
            spaces.get("broken")
    finally:
        spaces.get.cache_clear()


@pytest.mark.parametrize("name", EVERY)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_drawing_and_mutating_stay_in_the_space(name: str, seed: int) -> None:
    space = spaces.get(name)
    rng = random.Random(seed)
    arch = space.draw(rng)
    changed = space.mutate(arch, rng)
    assert space.parse(arch) == arch
    assert space.parse(changed) == changed != arch
    assert space.mutate(arch, random.Random(seed)) == space.mutate(arch, random.Random(seed))
    assert space.file_name(arch) != space.file_name(changed)
    assert space.from_row({"arch": arch, "accuracy": "1"}) == arch


@pytest.mark.parametrize("name", EVERY)
def test_samples_are_repeatable_and_without_repetition(name: str) -> None:
    space = spaces.get(name)
    assert space.sample(30, seed=1) == space.sample(30, seed=1) != space.sample(30, seed=2)
    assert len(set(space.sample(30, seed=1))) == 30
    with pytest.raises(ValueError, match="cannot draw -1"):
        space.sample(-1)


@pytest.mark.parametrize("name", ["nasbench201", "nasbenchmacro", "nats-sss"])
def test_enumeration_yields_each_architecture_once(name: str) -> None:
    space = spaces.get(name)
    everything = list(space.enumerate())
    assert len(everything) == len(set(everything)) == space.size
    assert all(space.parse(arch) == arch for arch in everything[:: len(everything) // 50])
    with pytest.raises(ValueError, match="cannot draw"):
        space.sample(len(everything) + 1)


def test_darts_enumerates_as_long_as_it_is_asked() -> None:
    space = spaces.get("darts")
    first = list(itertools.islice(space.enumerate(), 2000))
    assert len(set(first)) == 2000
    assert space.parse(first[-1]) == first[-1]
    # 1, 3, 6 and 10 pairs of sources, 7 operations on each of 8 edges, two cells.
    assert space.size == (1 * 3 * 6 * 10 * 7**8) ** 2


@pytest.mark.parametrize("name", EVERY)
def test_a_network_is_sound_and_holds_no_weight_bytes(name: str) -> None:
    space = spaces.get(name)
    (arch,) = space.sample(1, seed=3)
    proto = ir.to_proto(space.build(arch))
    onnx.checker.check_model(proto, full_check=True)
    assert max(len(tensor.raw_data) for tensor in proto.graph.initializer) <= 4 * 8
    assert {entry.key: entry.value for entry in proto.metadata_props}["epsinas.arch"] == arch


@pytest.mark.parametrize("name", EVERY)
def test_a_network_scores_the_same_lumped_and_plain(name: str) -> None:
    space = spaces.get(name)
    found = []
    for lump in (True, False):
        models = [space.build(arch, **SMALL[name]) for arch in space.sample(3, seed=8)]
        # Constants near 1 keep every space in range, and noise at bay.
        options: dict[str, Any] = {"weights": (0.01, 0.5), "inputs": space.defaults.input, "batch": 8}
        found.append(list(score_many(models, lump=lump, providers="cpu", arithmetic="float32", **options)))
    for lumped, plain in zip(*found, strict=True):
        assert lumped.status == plain.status, (lumped.reason, plain.reason)
        assert lumped.score == (None if plain.score is None else pytest.approx(plain.score, rel=2e-3, abs=2e-5))


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_a_network_is_scored_by_its_name_in_another_process(name: str) -> None:
    space = spaces.get(name)
    archs = space.sample(2, seed=4)
    options: dict[str, Any] = {"weights": space.defaults.weights, "inputs": space.defaults.input, "batch": 4}
    here = [score(space.build(arch), **options) for arch in archs]
    there = list(score_many([space.network(arch) for arch in archs], jobs=2, **options))
    assert [result.model for result in there] == archs
    assert [(result.status, result.score) for result in there] == [(result.status, result.score) for result in here]


@pytest.mark.parametrize("name", EVERY)
def test_sizes_that_do_not_exist_are_refused(name: str) -> None:
    space = spaces.get(name)
    with pytest.raises(TypeError, match="chanels"):
        space.build(space.parse(space.form), chanels=3)


@pytest.mark.parametrize(("name", "size"), [("darts", "layers"), ("nasbenchmacro", "classes"), ("nats-sss", "classes")])
def test_sizes_below_one_are_refused(name: str, size: str) -> None:
    space = spaces.get(name)
    with pytest.raises(ValueError, match=f"{size} is 0"):
        space.build(space.parse(space.form), **{size: 0})


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("nats-sss", "8:8:8:8", ["4 widths"]),
        ("nats-sss", "8:8:12:8:8", ["layer 3", "'12'", "steps of 8"]),
        ("nats-sss", "8:8:8:8:72", ["layer 5", "'72'"]),
        ("nasbenchmacro", "0123", ["4 digits", "8"]),
        ("nasbenchmacro", "01230000", ["layer 4", "'3'", "inverted residual"]),
        ("darts", "DARTS_V3", ["'DARTS_V3'", "DARTS_V2", "PC_DARTS_cifar"]),
        ("darts", "__import__('os').system('true')", ["neither"]),
        ("darts", "Genotype(normal=[].append(1))", ["neither"]),
        ("darts", "Genotype(normal=range(10**9), reduce=[])", ["neither"]),
        ("darts", "Genotype(normal=[], normal_concat=[2])", ["lacks reduce, reduce_concat"]),
        ("darts", '{"normal": 1, "normal_concat": [2], "reduce": [], "reduce_concat": [2]}', ["normal cell", "pairs"]),
    ],
)
def test_a_bad_architecture_is_refused_with_the_part_that_is_wrong(name: str, text: str, words: list[str]) -> None:
    with pytest.raises(ArchitectureError) as caught:
        spaces.get(name).parse(text)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"normal": [["conv_9x9", 0], ["skip_connect", 1]]}, ["edge 0 of node 2", "normal", "'conv_9x9'"]),
        ({"normal": [["skip_connect", 0], ["skip_connect", 2]]}, ["edge 1 of node 2", "comes from 2", "0 to 1"]),
        ({"reduce": [["skip_connect", 0]]}, ["reduce cell", "two for each node"]),
        ({"reduce": ["skip_connect", "skip_connect"]}, ["edge 0 of node 2", "pair"]),
        ({"reduce_concat": [2, 9]}, ["reduce cell concatenates", "0 to 5"]),
        ({"normal_concat": []}, ["normal cell concatenates"]),
    ],
)
def test_a_bad_genotype_is_refused_with_the_edge_that_is_wrong(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ArchitectureError) as caught:
        darts.parse(json.dumps({**vars(darts.PUBLISHED["DARTS_V1"]), **change}))
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("name", darts.PUBLISHED)
def test_a_genotype_is_read_by_name_as_text_and_as_json(name: str) -> None:
    genotype = darts.PUBLISHED[name]
    assert darts.parse(name) == darts.parse(str(genotype)) == darts.parse(json.dumps(vars(genotype))) == genotype
    if genotype.normal_concat == (2, 3, 4, 5):
        written = str(genotype).replace("normal_concat=[2, 3, 4, 5]", "normal_concat=range(2, 6)")
        assert darts.parse(written) == genotype


# The sizes in millions that the papers give for 36 channels, 20 cells and 10 classes, without the auxiliary head.
@pytest.mark.parametrize(("name", "millions"), [("DARTS_V2", 3.3), ("PDARTS", 3.4), ("PC_DARTS_cifar", 3.6)])
def test_published_genotypes_have_their_published_size(name: str, millions: float) -> None:
    assert learned(darts.build(name, classes=10)) / 1e6 == pytest.approx(millions, abs=0.055)


def test_parameters_of_macro_networks_are_those_of_the_benchmark() -> None:
    if not MACRO.exists():
        pytest.skip(f"the benchmark's table is in {MACRO}, which is not here")
    with gzip.open(MACRO, "rt") as file:
        rows = list(csv.DictReader(file))
    assert {row["arch"] for row in rows} == set(spaces.get("nasbenchmacro").enumerate())
    for row in rows[::20]:
        assert learned(nasbenchmacro.build(row["arch"], classes=10)) == int(row["params"]), row["arch"]


def torch_modules() -> Any:
    pytest.importorskip("torch", reason="the comparison with PyTorch needs the torch extra")
    import torch_spaces

    return torch_spaces


def compared(space: SearchSpace, arch: str, network: Any, **sizes: int) -> None:
    assert_same_as_torch(ir.to_proto(space.build(arch, **sizes)), network)


@pytest.mark.parametrize("arch", ["8:8:8:8:8", "8:24:16:16:64", "64:8:32:48:8"])
def test_networks_of_the_size_space_are_those_of_torch(arch: str) -> None:
    network = torch_modules().Sizes(nats_sss.parse(arch), classes=3)
    compared(spaces.get("nats-sss"), arch, network, classes=3)


@pytest.mark.parametrize("arch", ["00000000", "11111111", "22222222", "02012100"])
def test_networks_of_macro_are_those_of_torch(arch: str) -> None:
    compared(spaces.get("nasbenchmacro"), arch, torch_modules().Macro(arch, classes=3), classes=3)


@pytest.mark.parametrize("arch", [*darts.PUBLISHED, *spaces.get("darts").sample(2, seed=1)])
def test_networks_of_darts_are_those_of_torch(arch: str) -> None:
    network = torch_modules().Darts(vars(darts.parse(arch)), channels=4, layers=6, classes=3)
    compared(spaces.get("darts"), arch, network, channels=4, layers=6, classes=3)
