"""The algebra of partitions, against brute force over labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsinas_onnx.lump.partition import Partition, concatenate, every, of_array, product, repeated
from epsinas_onnx.lump.unlumpable import TooLong
from tests.lump.harness import partitions

labels = st.lists(st.integers(0, 3), min_size=1, max_size=8)


def same(part: Partition, i: int, j: int) -> bool:
    return bool(part.labels[i] == part.labels[j])


@given(labels)
def test_labels_are_equal_where_they_were_and_count_from_0_by_first_index(given_labels: list[int]) -> None:
    part = Partition.of(given_labels)
    assert [[same(part, i, j) for j in range(part.size)] for i in range(part.size)] == [
        [a == b for b in given_labels] for a in given_labels
    ]
    assert part.count == len(set(given_labels))
    assert list(dict.fromkeys(part.labels.tolist())) == list(range(part.count))
    assert part.sizes.tolist() == [part.labels.tolist().count(label) for label in range(part.count)]
    assert [part.labels.tolist().index(label) for label in range(part.count)] == part.representatives.tolist()
    assert part.uniform == (len(set(part.sizes.tolist())) == 1)
    assert part == Partition.of([label + 5 for label in given_labels])
    assert hash(part) == hash(Partition.of(part.labels))


@given(st.data(), st.integers(1, 7))
def test_the_join_is_equal_where_both_are(data: st.DataObject, size: int) -> None:
    first, second = data.draw(partitions(size)), data.draw(partitions(size))
    both = first.join(second)
    for i in range(size):
        for j in range(size):
            assert same(both, i, j) == (same(first, i, j) and same(second, i, j))
    assert both == second.join(first)
    assert first.labels[both.representatives].tolist() == first.classes_in(both).tolist()


def test_axes_of_different_sizes_have_no_join() -> None:
    with pytest.raises(ValueError, match="3 and 4"):
        Partition.one(3).join(Partition.one(4))


@given(st.data(), st.integers(1, 6))
def test_a_restriction_keeps_what_was_equal(data: st.DataObject, size: int) -> None:
    part = data.draw(partitions(size))
    indices = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=8))
    rest, classes = part.restrict(indices)
    assert classes[rest.labels].tolist() == part.labels[indices].tolist()
    assert len(set(classes.tolist())) == rest.count


@given(st.data(), st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_concatenated_classes_stay_apart(data: st.DataObject, sizes: list[int]) -> None:
    parts = [data.draw(partitions(size)) for size in sizes]
    whole = concatenate(parts)
    assert whole.count == sum(part.count for part in parts)
    places = [(index, i) for index, part in enumerate(parts) for i in range(part.size)]
    for a, (index, i) in enumerate(places):
        for b, (other, j) in enumerate(places):
            assert same(whole, a, b) == (index == other and same(parts[index], i, j))


@given(st.data(), st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_a_product_splits_into_its_factors(data: st.DataObject, sizes: list[int]) -> None:
    parts = tuple(data.draw(partitions(size)) for size in sizes)
    merged = product(parts)
    assert merged.count == int(np.prod([part.count for part in parts]))
    cells = np.zeros((1,), np.int64)
    for part in parts:
        cells = (cells[:, None] * part.count + part.labels).reshape(-1)
    assert merged.labels.tolist() == cells.tolist()
    again, moved = merged.split(sizes)
    assert again == parts
    assert moved is None


@given(st.data(), st.integers(1, 4), st.integers(1, 4))
def test_a_split_is_never_coarser_than_what_was_split(data: st.DataObject, rows: int, columns: int) -> None:
    part = data.draw(partitions(rows * columns))
    pieces, cells = part.split((rows, columns))
    merged = product(pieces)
    where = np.arange(part.count) if cells is None else cells.reshape(-1)
    assert where[merged.labels].tolist() == part.labels.tolist()


@given(st.integers(0, 2**16))
def test_equal_slices_of_an_array_are_one_class(seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 2, (3, 4, 2)).astype(np.float32)
    for axis, part in enumerate(of_array(array)):
        rows = np.moveaxis(array, axis, 0)
        for i in range(part.size):
            for j in range(part.size):
                assert same(part, i, j) == bool((rows[i] == rows[j]).all())


def test_an_empty_axis_has_no_class() -> None:
    assert [part.count for part in of_array(np.zeros((0, 3), np.float32))] == [0, 1]
    assert Partition.of([]).count == 0


@given(st.lists(labels, min_size=1, max_size=3), st.integers(1, 3))
def test_axes_whose_classes_are_those_of_the_first_are_laid_end_to_end_like_any_other(
    first: list[list[int]], times: int
) -> None:
    parts = [Partition.of(labels) for labels in first] * times
    whole = Partition.of(np.concatenate([part.labels for part in parts]))
    assert repeated(parts) == (whole if whole.count == parts[0].count else None)


@pytest.mark.parametrize(
    "make",
    [lambda: Partition.discrete(2**40).representatives, lambda: Partition.discrete(2**40).labels,
     lambda: concatenate([Partition.one(2**40), Partition.one(3)]), lambda: repeated([Partition.of([0, 1])] * 2**23),
     lambda: product([Partition.one(2**40), Partition.discrete(3)]), lambda: every(2**40), lambda: every(5, 2**40)],
)  # fmt: skip
def test_an_axis_that_is_too_long_to_be_told_apart_is_said_to_be(make: Callable[[], object]) -> None:
    with pytest.raises(TooLong):
        make()


def test_classes_of_a_long_axis_are_counted_without_a_number_each() -> None:
    assert Partition.discrete(2**40).sizes[7] == 1
    assert Partition.one(2**40).labels[2**39] == 0
    assert Partition.one(2**40).sizes.tolist() == [2**40]
