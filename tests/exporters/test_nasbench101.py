"""NAS-Bench-101: parsing, pruning, the hash, and the graphs against the benchmark's own figures and torch."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import random
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from epsinas_exporters import spaces
from epsinas_exporters.spaces import ArchitectureError, nasbench101
from epsinas_exporters.spaces.nasbench101 import Cell, isomorphism_hash, parse, vertex_channels
from epsinas_exporters.spaces.nasbench101_all import unique_cells
from tests.exporters.filling import assert_same_as_torch

SPACE = spaces.get("nasbench101")
SUBSET = Path(__file__).parents[3] / "shared" / "data" / "nasbench101_subset.csv.gz"
INCEPTION = json.dumps({
    "matrix": [[0, 1, 1, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 0, 0],
               [0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0]],
    "ops": ["input", "conv1x1-bn-relu", "conv3x3-bn-relu", "conv3x3-bn-relu", "conv3x3-bn-relu", "maxpool3x3",
            "output"],
})  # fmt: skip

cells = st.integers(0, 2**32).map(lambda seed: parse(SPACE.draw(random.Random(seed))))


def rows(count: int) -> list[dict[str, str]]:
    if not SUBSET.exists():
        pytest.skip(f"the benchmark's cells are in {SUBSET}, which is not here")
    with gzip.open(SUBSET, "rt") as file:
        return list(itertools.islice(csv.DictReader(file), count))


def parameters(model: ir.Model) -> int:
    """Return how many numbers the parameters of a graph hold, running statistics left out."""
    made = [node for node in model.graph if node.op_type == "ConstantOfShape"]
    learned = [node for node in made if not str(node.outputs[0].name).startswith("running")]
    return sum(int(np.prod(node.inputs[0].const_value.numpy())) for node in learned)  # type: ignore[union-attr]


def reordered(cell: Cell, order: list[int]) -> Cell | None:
    """Return the cell with its vertices in another order, None where an edge would point backwards."""
    matrix = tuple(tuple(cell.matrix[a][b] for b in order) for a in order)
    if any(matrix[a][b] for a in range(len(order)) for b in range(a + 1)):
        return None
    return Cell(matrix, tuple(cell.operations[vertex] for vertex in order))


def same_cell_reordered(cell: Cell) -> list[Cell]:
    last = len(cell.matrix) - 1
    orders = ([0, *inner, last] for inner in itertools.permutations(range(1, last)))
    return [other for order in orders if (other := reordered(cell, order)) is not None]


@given(cells)
def test_a_cell_is_parsed_back_from_its_text(cell: Cell) -> None:
    assert parse(str(cell)) == cell


@given(cells)
def test_pruning_leaves_a_pruned_cell_as_it_is(cell: Cell) -> None:
    assert nasbench101.pruned(cell.matrix, cell.operations) == cell


@given(cells, st.data())
def test_the_hash_does_not_depend_on_the_order_of_vertices(cell: Cell, data: st.DataObject) -> None:
    other = data.draw(st.sampled_from(same_cell_reordered(cell)))
    assert isomorphism_hash(other) == isomorphism_hash(cell)


def test_hashes_are_those_of_the_benchmark() -> None:
    for row in rows(3000):
        assert isomorphism_hash(parse(SPACE.from_row(row))) == row["hash"]


def test_parameters_are_those_of_the_benchmark() -> None:
    """The rest of dividing channels goes to the first vertices, so that isomorphic cells may differ by a few."""
    for row in rows(120):
        cell = parse(SPACE.from_row(row))
        wanted = int(row["params"])
        if parameters(nasbench101.build(str(cell), classes=10)) != wanted:
            others = same_cell_reordered(cell)
            assert wanted in {parameters(nasbench101.build(str(other), classes=10)) for other in others}, row["hash"]


def test_what_is_on_no_path_is_pruned() -> None:
    matrix = [[0, 1, 1, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]
    ops = ["input", "conv3x3-bn-relu", "maxpool3x3", "conv1x1-bn-relu", "output"]
    cell = parse(json.dumps({"matrix": matrix, "ops": ops}))
    assert cell == Cell(((0, 1, 0), (0, 0, 1), (0, 0, 0)), ("input", "conv3x3-bn-relu", "output"))


def test_the_names_of_the_benchmarks_own_api_are_understood() -> None:
    data = json.loads(INCEPTION)
    assert parse(json.dumps({"module_adjacency": data["matrix"], "module_operations": data["ops"]})) == parse(INCEPTION)


def test_channels_are_shared_by_the_vertices_that_end_in_the_output() -> None:
    assert vertex_channels(parse(INCEPTION), 128, 130) == [128, 33, 33, 32, 32, 32, 130]


@pytest.mark.parametrize(
    ("matrix", "ops", "words"),
    [
        ([[0, 1], [0, 0]], ["input"], ["2 vertices", "1 operations"]),
        ([[0, 1, 0], [0, 0, 1]], ["input", "maxpool3x3", "output"], ["not square"]),
        ([[0, 1, 0], [1, 0, 1], [0, 0, 0]], ["input", "maxpool3x3", "output"], ["(1, 0)", "later"]),
        ([[0, 2, 0], [0, 0, 1], [0, 0, 0]], ["input", "maxpool3x3", "output"], ["(0, 1)", "is 2"]),
        ([[0, 1, 0], [0, 0, 1], [0, 0, 0]], ["input", "conv5x5", "output"], ["vertex 1", "conv5x5", "maxpool3x3"]),
        ([[0, 1, 0], [0, 0, 1], [0, 0, 0]], ["output", "maxpool3x3", "input"], ["'output'", "'input'"]),
        ([[0, 1, 0], [0, 0, 0], [0, 0, 0]], ["input", "maxpool3x3", "output"], ["no path"]),
        ([[0, "a"], [0, 0]], ["input", "output"], ["0 and 1"]),
    ],
)
def test_a_bad_cell_is_refused_with_what_is_wrong(matrix: object, ops: list[str], words: list[str]) -> None:
    with pytest.raises(ArchitectureError) as caught:
        parse(json.dumps({"matrix": matrix, "ops": ops}))
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"matrix": [[0]]}', "|nor_conv_3x3~0|"])
def test_what_is_no_cell_is_refused(text: str) -> None:
    with pytest.raises(ArchitectureError, match="write it like"):
        parse(text)


def test_limits_hold_for_the_pruned_cell() -> None:
    full = [[int(b > a) for b in range(7)] for a in range(7)]
    with pytest.raises(ArchitectureError, match="21 edges"):
        parse(json.dumps({"matrix": full, "ops": ["input", *["maxpool3x3"] * 5, "output"]}))


def test_small_cells_are_all_found_once() -> None:
    """Up to 5 vertices the cells can be enumerated one by one, with the benchmark's own hash."""
    expected = set()
    for size in range(2, 6):
        places = list(itertools.combinations(range(size), 2))
        for bits in itertools.product((0, 1), repeat=len(places)):
            matrix = [[0] * size for _ in range(size)]
            for (a, b), bit in zip(places, bits, strict=True):
                matrix[a][b] = bit
            for names in itertools.product(nasbench101.OPERATIONS, repeat=size - 2):
                cell = nasbench101.pruned(tuple(map(tuple, matrix)), ("input", *names, "output"))
                if cell is not None and len(cell.matrix) == size and cell.edges <= 9:
                    expected.add(isomorphism_hash(cell))
    small = itertools.takewhile(lambda cell: len(cell[0]) < 6, unique_cells())
    found = [isomorphism_hash(Cell(*cell)) for cell in small]
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_the_benchmark_holds_as_many_cells_as_its_paper_says() -> None:
    assert sum(1 for _ in unique_cells()) == 423_624 == SPACE.size


@settings(deadline=None)
@example(parse('{"matrix":[[0,1],[0,0]],"ops":["input","output"]}'), 0)
@given(cells, st.integers(0, 2**32))
def test_a_mutation_is_another_cell_of_the_space(cell: Cell, seed: int) -> None:
    changed = SPACE.mutate(str(cell), random.Random(seed))
    assert isomorphism_hash(parse(changed)) != isomorphism_hash(cell)
    assert SPACE.parse(changed) == changed


def test_a_sample_is_repeatable_and_without_repetition() -> None:
    assert SPACE.sample(20, seed=1) == SPACE.sample(20, seed=1)
    assert len(set(SPACE.sample(20, seed=1))) == 20


def test_the_file_is_sound_and_holds_no_weight_bytes() -> None:
    proto = ir.to_proto(SPACE.build(INCEPTION))
    onnx.checker.check_model(proto, full_check=True)
    assert max(len(tensor.raw_data) for tensor in proto.graph.initializer) <= 4 * 8


@pytest.mark.parametrize("arch", [INCEPTION, *SPACE.sample(4, seed=5)])
def test_onnxruntime_and_torch_agree_on_random_weights(arch: str) -> None:
    pytest.importorskip("torch", reason="the comparison with PyTorch needs the torch extra")
    from torch_nasbench101 import Network

    cell = parse(arch)
    network = Network(cell.matrix, cell.operations, channels=10, stacks=2, cells=2, classes=3)
    assert_same_as_torch(ir.to_proto(nasbench101.build(arch, channels=10, stacks=2, cells=2, classes=3)), network)
