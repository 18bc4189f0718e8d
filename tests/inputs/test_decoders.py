"""Decoders as they are exported for generation: what is fed fits together, and they score as they come."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from epsinas_onnx import Status, inspect, strip
from epsinas_onnx.graph.analysis.caches import find_caches

from .decoders import DECODERS, STEPS, grouped, optimum, scattered
from .feeding import feeds_of, runs, scores

SEEN = {"past_sequence_length": 6, "sequence_length": 3}


@pytest.mark.parametrize("form", DECODERS)
def test_onnx_runtime_takes_what_is_fed(form: str) -> None:
    proto = DECODERS[form]()
    shapes = {"sequence_length": 9} if "few angles" in form else None
    runs(proto, feeds_of(proto, shapes))


@pytest.mark.parametrize("form", DECODERS)
def test_decoder_scores_as_it_comes_lumped_and_plain(form: str) -> None:
    lumped, plain = scores(DECODERS[form]())
    assert lumped.status is plain.status is Status.OK
    assert lumped.score == pytest.approx(plain.score, rel=5e-3)


def test_prompt_has_seen_nothing_and_its_mask_covers_what_is_fed() -> None:
    feeds = feeds_of(optimum())
    assert feeds["past_key_values.0.key"].shape == (4, 4, 0, 16)
    assert feeds["attention_mask"].shape == feeds["input_ids"].shape == (4, 128)
    np.testing.assert_array_equal(feeds["position_ids"], [list(range(128))] * 4)


@pytest.mark.parametrize(
    "form", ["Optimum", "Optimum, sizes without names", "older exporter", "MultiHeadAttention", "Attention-23"]
)
def test_behind_tokens_seen_the_mask_and_the_places_go_on(form: str) -> None:
    proto = DECODERS[form]()
    feeds = feeds_of(proto, SEEN)
    assert feeds["past_key_values.0.key"].shape[2] == 6
    if "attention_mask" in feeds:
        assert feeds["attention_mask"].shape == (4, 9)
    places = feeds["places" if "places" in feeds else "position_ids"]
    np.testing.assert_array_equal(places, [[6, 7, 8]] * 4)
    runs(proto, feeds)


@pytest.mark.parametrize("form", STEPS)
def test_single_token_sees_all_that_its_caches_hold(form: str) -> None:
    make, seen = STEPS[form]
    proto = make()
    opens = any(
        dim.dim_param == "past_sequence_length" for v in proto.graph.input for dim in v.type.tensor_type.shape.dim
    )
    feeds = feeds_of(proto, {"past_sequence_length": seen} if opens else None)
    runs(proto, feeds)
    expected = {
        "position_ids": seen,
        "places": seen,
        "write": seen,
        "valid": seen + 1,
        "seqlens_k": seen,
        "total": seen + 1,
    }
    found = {name: set(feeds[name].reshape(-1).tolist()) for name in expected if name in feeds}
    assert found == {name: {expected[name]} for name in found}
    assert found


def test_lengths_that_are_fed_are_those_that_a_mask_gives() -> None:
    assert [result.raw_score for result in scores(grouped())] == [result.raw_score for result in scores(grouped(True))]


def test_prompt_ends_where_its_tokens_do_however_large_the_buffer() -> None:
    exact, large = (scores(scattered(size), shapes={"sequence_length": 8})[1] for size in (8, 200))
    assert exact.score == pytest.approx(large.score, rel=1e-4)


def test_graph_that_fails_on_empty_caches_is_scored_behind_one_token() -> None:
    proto = optimum(guard=True)
    assert feeds_of(proto, attempt=1)["attention_mask"].shape == (4, 129)
    assert {result.status for result in scores(proto)} == {Status.OK}


def test_caches_that_are_only_read_are_not_empty() -> None:
    feeds = feeds_of(DECODERS["cross-attention"]())
    assert feeds["past_key_values.0.encoder.key"].shape[2] == feeds["attention_mask"].shape[1] == 128


def test_caches_are_found_by_what_is_done_with_them() -> None:
    both = {(f"past_key_values.0.{kind}", 2) for kind in ("key", "value")}
    for form, make in DECODERS.items():
        found = {(cache.name, cache.axis) for cache in find_caches(ir.from_proto(make()))}
        assert found == ({("past_0", 3)} if form in ("stacked", "Attention") else both), form


@pytest.mark.parametrize("form", ["Optimum", "GenAI", "MultiHeadAttention"])
def test_decoder_without_names_scores_the_same(form: str) -> None:
    proto = DECODERS[form]()
    before, after = scores(proto)[0], scores(strip(proto, anonymise=True))[0]
    assert before.raw_score == after.raw_score


def test_inspect_says_what_operators_ask() -> None:
    kinds = {spec.name: spec.kind for spec in inspect(grouped(True), batch=4).inputs}
    assert kinds["seqlens_k"] == kinds["total"] == "length"
    kinds = {spec.name: spec.kind for spec in inspect(scattered(), batch=4).inputs}
    assert (kinds["write"], kinds["valid"]) == ("offset", "length")


def test_empty_caches_may_be_asked_for_and_other_empty_sizes_may_not() -> None:
    feeds_of(optimum(), {"past_sequence_length": 0, "sequence_length": 5})
    with pytest.raises(Exception, match="'sequence_length' is 0; sizes are whole numbers from 1"):
        feeds_of(optimum(), {"sequence_length": 0})
