"""Minibatches: the grey ramp, seeded values, and those that a user gives."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from epsinas_onnx import Status, score
from epsinas_onnx.errors import ShapeError, UnsupportedError, UsageError
from epsinas_onnx.graph.analysis.input_spec import InputSpec
from epsinas_onnx.graph.analysis.shapes import model_inputs
from epsinas_onnx.graph.load import load_model
from epsinas_onnx.inputs.generate import KINDS, grey_ramp, kind_for, make_input, perturb
from epsinas_onnx.inputs.given import fit, read_given, read_images
from epsinas_onnx.inputs.operands import Demand
from epsinas_onnx.inputs.vocabulary import token_bound
from tests.builders import build

Array = npt.NDArray[Any]
FLOAT, HALF, INT64, INT32 = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.INT64, ir.DataType.INT32
UINT8, BOOL, STRING = ir.DataType.UINT8, ir.DataType.BOOL, ir.DataType.STRING


def spec_of(shape: tuple[int, ...], dtype: ir.DataType = FLOAT, name: str = "x", axis: int | None = 0) -> InputSpec:
    declared = tuple("N" if i == axis else size for i, size in enumerate(shape))
    return InputSpec(name, dtype, declared, shape, axis)


NCHW, NHWC = spec_of((8, 3, 4, 5)), spec_of((8, 6, 5, 3))


# The grey ramp.


@pytest.mark.parametrize("spec", [NCHW, NHWC], ids=["NCHW", "NHWC"])
def test_grey_ramp_fills_sample_i_of_b_with_i_over_b(spec: InputSpec) -> None:
    ramp = make_input(spec, "auto", 0)
    assert ramp.dtype == np.float32
    assert ramp.shape == spec.shape
    for i in range(8):
        assert (ramp[i] == np.float32(i / 8)).all()


def test_grey_ramp_of_256_images_has_256_levels_below_1() -> None:
    ramp = grey_ramp((256, 3, 2, 2), 0)
    np.testing.assert_array_equal(ramp[:, 0, 0, 0], (np.arange(256) / 256).astype(np.float32))
    assert (ramp == ramp[:, :1, :1, :1]).all()


def test_grey_ramp_runs_along_the_axis_of_the_samples() -> None:
    np.testing.assert_array_equal(grey_ramp((2, 4), 1), [[0, 0.25, 0.5, 0.75]] * 2)


def test_uint8_images_reach_from_0_towards_255() -> None:
    ramp = make_input(spec_of((4, 6, 6, 3), UINT8), "auto", 0)
    assert ramp.dtype == np.uint8
    assert ramp[:, 0, 0, 0].tolist() == [0, 64, 128, 191]


@given(batch=st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_grey_levels_are_distinct_and_rise(batch: int) -> None:
    levels = grey_ramp((batch, 1, 1, 1), 0).reshape(-1)
    assert (np.diff(levels) > 0).all()
    assert levels[0] == 0
    assert levels[-1] < 1


# Seeded values.


@pytest.mark.parametrize("kind", ["normal", "uniform", "tokens"])
def test_random_inputs_are_those_of_their_seed(kind: str) -> None:
    spec = spec_of((8, 40), INT64) if kind == "tokens" else spec_of((8, 40))
    first = make_input(spec, kind, 3)
    np.testing.assert_array_equal(first, make_input(spec, kind, 3))
    assert (first != make_input(spec, kind, 4)).any()
    assert (first != make_input(spec, kind, 3, index=1)).any()


def test_normal_and_uniform_inputs_are_distributed_as_they_say() -> None:
    normal, uniform = (make_input(spec_of((100, 100)), kind, 0) for kind in ("normal", "uniform"))
    assert normal.dtype == uniform.dtype == np.float32
    assert abs(normal.mean()) < 0.05
    assert abs(normal.std() - 1) < 0.05
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.02


@given(bound=st.integers(1, 50), seed=st.integers(0, 99), integer=st.sampled_from([INT64, INT32]))
@settings(max_examples=40, deadline=None)
def test_tokens_lie_below_their_bound(bound: int, seed: int, integer: ir.DataType) -> None:
    tokens = make_input(spec_of((4, 30), integer, "ids"), "auto", seed, Demand(bound))
    assert tokens.dtype == integer.numpy()
    assert 0 <= tokens.min() <= tokens.max() < bound


def test_tokens_take_every_value_below_their_bound() -> None:
    assert set(make_input(spec_of((8, 100), INT64), "tokens", 0, Demand(7)).reshape(-1).tolist()) == set(range(7))


OTHERS: list[tuple[InputSpec, Array]] = [
    (spec_of((2, 3), INT64, "attention_mask"), np.ones((2, 3), np.int64)),
    (spec_of((2, 3), FLOAT, "encoder_mask"), np.ones((2, 3), np.float32)),
    (spec_of((2, 3), BOOL, "flags"), np.ones((2, 3), np.bool_)),
    (spec_of((2, 3), INT64, "token_type_ids"), np.zeros((2, 3), np.int64)),
    (spec_of((2, 3), INT64, "position_ids"), np.array([[0, 1, 2]] * 2)),
    (spec_of((), INT64, "sr", None), np.array(16_000)),
    (spec_of((), FLOAT, "scale", None), np.ones((), np.float32)),
    (spec_of((), FLOAT, "clip_min", None), np.zeros((), np.float32)),
    (spec_of((), FLOAT, "clip_max", None), np.full((), 1e6, np.float32)),
]


@pytest.mark.parametrize(("spec", "expected"), OTHERS, ids=[spec.name for spec, _ in OTHERS])
def test_inputs_that_are_no_signal_get_a_sensible_value(spec: InputSpec, expected: Array) -> None:
    made = make_input(spec, "auto", 0)
    assert made.dtype == expected.dtype
    np.testing.assert_array_equal(made, expected)


CHOICES: list[tuple[InputSpec, str, str]] = [
    (NCHW, "auto", "grey"),
    (NHWC, "auto", "grey"),
    (spec_of((8, 12, 4, 5)), "auto", "normal"),
    (spec_of((8, 10)), "auto", "normal"),
    (spec_of((8, 10)), "grey", "grey"),
    (spec_of((8, 10)), "uniform", "uniform"),
    (NCHW, "normal", "normal"),
    (NCHW, "tokens", "grey"),
    (spec_of((8, 10), INT64), "grey", "tokens"),
    (spec_of((8, 6, 5, 3), UINT8), "auto", "grey"),
    (spec_of((8, 10), INT64, "input_lengths"), "auto", "length"),
]


@pytest.mark.parametrize(("spec", "kind", "expected"), CHOICES)
def test_what_is_fed_follows_from_the_input_and_the_kind_asked_for(spec: InputSpec, kind: str, expected: str) -> None:
    assert kind_for(spec, kind) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_inputs_keep_their_type(kind: str) -> None:
    assert make_input(spec_of((4, 3, 6, 6), HALF), kind, 0).dtype == np.float16


def test_kind_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(UsageError, match=r"'gray'.*grey"):
        make_input(NCHW, "gray", 0)


def test_strings_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="'words'"):
        make_input(spec_of((2,), STRING, "words"), "auto", 0)


# Last bits.


@given(seed=st.integers(0, 1000), dtype=st.sampled_from([np.float16, np.float32, np.float64]))
@settings(max_examples=40, deadline=None)
def test_perturbing_moves_every_entry_by_one_unit_in_the_last_place(seed: int, dtype: Any) -> None:
    array = np.random.default_rng(seed).standard_normal((7, 9)).astype(dtype)
    array[0, 0] = 0
    moved = perturb(array, seed)
    assert moved.dtype == dtype
    up, down = (np.nextafter(array, np.array(limit, dtype)) for limit in (np.inf, -np.inf))
    assert ((moved == up) | (moved == down)).all()
    assert (moved == up).any()
    assert (moved == down).any()


def test_perturbing_is_that_of_its_seed() -> None:
    array = np.ones(100, np.float32)
    np.testing.assert_array_equal(perturb(array, 1), perturb(array, 1))
    assert (perturb(array, 1) != perturb(array, 2)).any()
    assert (array == 1).all()


def test_integers_have_no_last_bits_to_change() -> None:
    tokens = np.arange(5)
    assert perturb(tokens) is tokens


# The vocabulary behind an integer input.


BOUNDS: dict[str, tuple[str, int | None]] = {
    "Gather": ("e = Gather(E, ids)", 11),
    "Gather along the other axis": ("e = Gather <axis = 1> (E, ids)", 4),
    "behind Cast and Reshape": ("c = Cast <to = 6> (ids)  r = Reshape(c, flat)  e = Gather(E, r)", 11),
    "the smaller of two tables": ("d = Gather(F, ids)  e = Gather(E, ids)", 7),
    "OneHot": ("e = OneHot(ids, depth, levels)", 9),
    "no table": ("e = Cast <to = 1> (ids)", None),
}


@pytest.mark.parametrize("case", BOUNDS)
def test_vocabulary_is_the_table_that_the_tokens_look_up(case: str) -> None:
    nodes, expected = BOUNDS[case]
    tensors = {"flat": np.array([-1]), "depth": np.array(9), "levels": np.array([0, 1], np.float32)}
    proto = build(f"(int64[N,5] ids) => (float y) {{ {nodes}  y = Relu(e) }}", E=(11, 4), F=(7, 4), **tensors)
    (value,) = model_inputs(load_model(proto).model)
    assert token_bound(value) == expected


def test_vocabulary_is_found_inside_a_branch() -> None:
    proto = build(
        """(bool flag, int64[N,5] ids) => (float y) {
            y = If (flag) < then_branch = t () => (float p) { p = Gather(E, ids) },
                            else_branch = e () => (float q) { q = Gather(F, ids) } >
        }""",
        E=(11, 4),
        F=(7, 4),
    )
    bounds = {value.name: token_bound(value) for value in model_inputs(load_model(proto).model)}
    assert bounds == {"flag": None, "ids": 7}


# What a user gives.

ARRAY = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
DENSE = [spec_of((1, 3)), spec_of((1, 2), name="z")]


def forms(folder: Path) -> dict[str, Any]:
    np.save(folder / "x.npy", ARRAY)
    np.savez(folder / "x.npz", x=ARRAY)
    np.savez(folder / "other.npz", other=ARRAY)
    return {
        "array": ARRAY,
        "nested lists": ARRAY.tolist(),
        "mapping": {"x": ARRAY},
        "mapping to a file": {"x": folder / "x.npy"},
        "npy": folder / "x.npy",
        "npy as text": str(folder / "x.npy"),
        "npz": folder / "x.npz",
        "npz with one array of another name": folder / "other.npz",
    }


@pytest.mark.parametrize(
    "form",
    ["array", "nested lists", "mapping", "mapping to a file", "npy", "npy as text", "npz",
     "npz with one array of another name"],
)  # fmt: skip
def test_given_array_goes_to_its_input_in_every_form(form: str, tmp_path: Path) -> None:
    arrays = read_given(forms(tmp_path)[form])
    assert isinstance(arrays, dict)
    fitted = fit(arrays, DENSE, "m")
    assert list(fitted) == ["x"]
    assert fitted["x"].dtype == np.float32
    np.testing.assert_array_equal(fitted["x"], ARRAY)


def test_arrays_of_an_npz_go_to_the_inputs_of_their_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "both.npz", z=ARRAY[:, :2], x=ARRAY)
    arrays = read_given(tmp_path / "both.npz")
    assert isinstance(arrays, dict)
    fitted = fit(arrays, DENSE, "m")
    np.testing.assert_array_equal(fitted["x"], ARRAY)
    np.testing.assert_array_equal(fitted["z"], ARRAY[:, :2])


def test_given_tokens_are_cast_to_the_type_of_the_input() -> None:
    fitted = fit({"": np.arange(6, dtype=np.int64).reshape(2, 3)}, [spec_of((1, 3), INT32)], "m")
    assert fitted["x"].dtype == np.int32


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_given_array_that_is_not_finite_is_refused_with_the_count(bad: float) -> None:
    broken = ARRAY.copy()
    broken[0, :2] = bad
    with pytest.raises(UsageError, match="2 NaN or infinite entries of 18"):
        read_given(broken)


def test_ragged_lists_are_refused() -> None:
    with pytest.raises(UsageError, match="rectangular"):
        read_given([[1.0, 2.0], [3.0]])


def test_arrays_of_objects_and_pickles_are_refused(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}, None], dtype=object)
    with pytest.raises(UsageError, match="rectangular"):
        read_given(objects)
    np.save(tmp_path / "pickle.npy", objects)
    with pytest.raises(UsageError, match=r"pickle\.npy"):
        read_given(tmp_path / "pickle.npy")


def test_missing_or_broken_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.npy"):
        read_given(tmp_path / "gone.npy")
    (tmp_path / "text.npy").write_text("no array")
    with pytest.raises(UsageError, match=r"text\.npy"):
        read_given(tmp_path / "text.npy")
    (tmp_path / "empty.npz").write_bytes(b"")
    with pytest.raises(UsageError, match=r"empty\.npz"):
        read_given(tmp_path / "empty.npz")


MISFITS: dict[str, tuple[dict[str, Array], str]] = {
    "unknown name": ({"w": ARRAY, "x": ARRAY}, "'w'.*x, z"),
    "another width": ({"x": ARRAY[:, :2]}, r"\[6, 2\].*'x'.*\[N,3\]"),
    "another rank": ({"x": ARRAY[0]}, r"\[3\].*'x'"),
    "integers for floats": ({"x": np.ones((6, 3), np.int64)}, "int64.*'x'.*float32"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_given_array_that_does_not_fit_is_refused_with_both_sides(case: str) -> None:
    arrays, message = MISFITS[case]
    with pytest.raises(ShapeError, match=message):
        fit(arrays, DENSE, "m")


def write_images(folder: Path) -> None:
    """Write plain images of 10x6 in three formats and modes, one below a folder, and a file that is none."""
    (folder / "sub").mkdir()
    Image.new("RGB", (10, 6), (255, 51, 51)).save(folder / "b.png")
    Image.new("L", (10, 6), 102).save(folder / "a.bmp")
    Image.new("RGBA", (10, 6), (0, 255, 0, 255)).save(folder / "sub" / "c.PNG")
    (folder / "notes.txt").write_text("no image")


def test_folder_of_images_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    write_images(tmp_path)
    assert read_given(tmp_path) == tmp_path
    images = read_images(tmp_path, spec_of((1, 3, 4, 5)), 99, "m")
    assert images.shape == (3, 3, 4, 5)
    assert images.dtype == np.float32
    np.testing.assert_allclose(images[:, :, 0, 0], [[0.4, 0.4, 0.4], [1, 0.2, 0.2], [0, 1, 0]], rtol=1e-6)
    assert (images == images[:, :, :1, :1]).all()


def test_order_of_images_is_that_of_their_names_however_they_were_written(tmp_path: Path) -> None:
    for level in (7, 2, 9, 0, 4, 8, 1, 6, 3, 5):
        Image.new("L", (4, 4), 20 * level).save(tmp_path / f"{level}.png")
    images = read_images(tmp_path, spec_of((1, 1, 4, 4), UINT8), 99, "m")
    assert images[:, 0, 0, 0].tolist() == [20 * level for level in range(10)]


def test_images_fit_the_layout_the_channels_and_the_type_of_the_input(tmp_path: Path) -> None:
    write_images(tmp_path)
    channels_last = read_images(tmp_path, spec_of((1, 6, 5, 3), UINT8), 99, "m")
    assert channels_last.dtype == np.uint8
    assert channels_last[:, 0, 0].tolist() == [[102, 102, 102], [255, 51, 51], [0, 255, 0]]
    assert read_images(tmp_path, spec_of((1, 1, 4, 5)), 99, "m").shape == (3, 1, 4, 5)
    assert read_images(tmp_path, spec_of((1, 4, 7, 5)), 99, "m").shape == (3, 4, 7, 5)


def test_no_more_images_are_read_than_the_batch_holds(tmp_path: Path) -> None:
    write_images(tmp_path)
    assert len(read_images(tmp_path, spec_of((1, 3, 4, 5)), 2, "m")) == 2


def test_folder_without_images_and_a_broken_image_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no images"):
        read_images(tmp_path, NCHW, 2, "m")
    (tmp_path / "broken.png").write_bytes(b"not a png")
    with pytest.raises(UsageError, match=r"broken\.png"):
        read_images(tmp_path, NCHW, 2, "m")


def test_images_for_an_input_that_takes_none_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path)
    with pytest.raises(ShapeError, match="'x'"):
        read_images(tmp_path, spec_of((8, 10)), 2, "m")


MODEL = """(float[N,3,8,8] x) => (float[N,1] y) {
    c = Conv(x, W)  t = Tanh(c)  p = GlobalAveragePool(t)  f = Flatten(p)  y = MatMul(f, D)
}"""


def test_folder_of_images_decides_the_batch_and_is_scored(tmp_path: Path) -> None:
    write_images(tmp_path)
    proto = build(MODEL, W=(4, 3, 3, 3), D=(4, 1))
    result = score(proto, inputs=tmp_path, weights=(0.01, 0.1), providers="cpu", threads=1)
    assert (result.batch, result.input, result.status) == (3, str(tmp_path), Status.OK)


def test_given_arrays_decide_the_batch_and_score_like_the_same_ramp() -> None:
    proto = build(MODEL, W=(4, 3, 3, 3), D=(4, 1))
    options: dict[str, Any] = {"weights": (0.01, 0.1), "providers": "cpu", "threads": 1}
    ramp = score(proto, batch=5, **options)
    given_ramp = score(proto, inputs=grey_ramp((5, 3, 8, 8), 0), **options)
    assert (ramp.input, given_ramp.input, given_ramp.batch) == ("grey", "given arrays", 5)
    assert ramp.status is Status.OK
    assert given_ramp.score == ramp.score


def test_given_arrays_with_different_batches_or_a_single_sample_are_refused() -> None:
    proto = build("(float[N,3] x, float[N,3] z) => (float[N,3] y) { y = Add(x, z) }")
    with pytest.raises(ShapeError, match=r"\[4, 6\] samples"):
        score(proto, inputs={"x": ARRAY, "z": ARRAY[:4]}, providers="cpu")
    with pytest.raises(UsageError, match="single sample"):
        score(proto, inputs={"x": ARRAY[:1], "z": ARRAY[:1]}, providers="cpu")


def test_a_given_scalar_stays_a_scalar() -> None:
    proto = build("(float[N,4] x, float g) => (float[N,4] y) { a = Mul(x, g)  y = MatMul(a, W) }", W=(4, 4))
    result = score(proto, inputs={"g": np.array(2.0, np.float32)}, batch=4)
    assert result.status is not Status.ERROR


def test_a_scalar_in_front_does_not_change_what_the_other_inputs_get() -> None:
    body = "{ a = MatMul(x, W)  b = Mul(a, g)  c = Tanh(s)  y = Add(b, c) }"
    scores = [
        score(build(f"({inputs}) => (float[N,4] y) {body}", W=(4, 4)), batch=8, weights=(0.1, 0.5)).score
        for inputs in ("float[N,4] x, float g, float[N,4] s", "float[N,4] x, float[N,4] s, float g")
    ]
    assert scores[0] is not None
    assert scores[0] == scores[1]


def test_a_length_is_that_of_the_longest_sequence_and_not_the_number_of_samples() -> None:
    graph = (
        "(float[N,20,4] x, int64[N] x_lengths) => (float[N,20,4] y) { m = MatMul(x, W)  r = Range(zero, twenty, one)"
        "  l = Unsqueeze(x_lengths, one1)  k = Less(r, l)  f = Cast <to = 1> (k)  c = Unsqueeze(f, two)"
        "  h = Mul(m, c)  y = Tanh(h) }"
    )
    numbers = {
        "zero": np.array(0),
        "twenty": np.array(20),
        "one": np.array(1),
        "one1": np.array([1]),
        "two": np.array([2]),
    }
    proto = build(graph, W=(4, 4), **numbers)
    whole = build("(float[N,20,4] x) => (float[N,20,4] y) { m = MatMul(x, W)  y = Tanh(m) }", W=(4, 4))
    ours, theirs = (score(model, batch=6, weights=(0.1, 0.5), providers="cpu") for model in (proto, whole))
    assert ours.raw_score == theirs.raw_score
    assert ours.raw_score


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_noise_is_the_same_for_the_next_model_and_nobody_can_write_to_it(kind: str) -> None:
    spec = spec_of((4, 3, 6, 6))
    first, again = make_input(spec, kind, 3), make_input(spec, kind, 3)
    rng = np.random.default_rng([3, 0])
    wanted = rng.standard_normal(spec.shape, np.float32) if kind == "normal" else rng.random(spec.shape, np.float32)
    np.testing.assert_array_equal(first, wanted)
    np.testing.assert_array_equal(again, wanted)
    with pytest.raises(ValueError, match="read-only"):
        first += 1
    others = [make_input(spec, kind, 4), make_input(spec, kind, 3, index=1), make_input(spec_of((4, 3, 36)), kind, 3)]
    for other in others:
        assert not np.array_equal(other.reshape(-1)[:100], wanted.reshape(-1)[:100]) or other.shape != wanted.shape
