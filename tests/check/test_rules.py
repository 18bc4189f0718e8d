"""Every rule finds what it is for, and is silent about a model without it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from epsinas_onnx.check.finding import Severity
from epsinas_onnx.check.rules import RULES
from tests.builders import build, external, perceptron
from tests.check.checking import QUICK, checked, of, rules
from tests.graph.passes.test_restore_norms import chain

ROOT = Path(__file__).parents[2]
FOLDED = ROOT / "tests" / "data" / "folded_exports.zip"


def stored_export(name: str, folder: Path) -> Path:
    with zipfile.ZipFile(FOLDED) as files:
        return Path(files.extract(name, folder))


def test_a_good_model_breaks_no_rule(tmp_path: Path) -> None:
    found = checked(perceptron(), tmp_path)
    assert found.findings == ()
    assert found.facts.status == "ok"
    assert found.facts.parameters == 3 * 4 + 4 * 2 + 2


@pytest.mark.parametrize("data", [b"", b"\x08\x07nothing", b"PK\x03\x04 a zip", None])
def test_what_cannot_be_read_is_one_finding(data: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    if data is not None:
        path.write_bytes(data)
    found = checked(path, tmp_path)
    assert len(found.findings) == 1, found.findings
    assert found.findings[0].rule == "unreadable"
    assert found.findings[0].severity is Severity.ERROR
    assert "broken.onnx" not in found.findings[0].message


def test_what_the_checker_of_onnx_refuses_is_invalid(tmp_path: Path) -> None:
    model = perceptron()
    model.graph.node[0].attribute.append(helper.make_attribute("no_such_attribute", 3))
    assert "no_such_attribute" in of("invalid-onnx", checked(model, tmp_path).findings)[0].message


def test_shapes_that_contradict_each_other_are_invalid(tmp_path: Path) -> None:
    model = build("(float[N,3] x) => (float[N,7] y) { h = MatMul(x, W) y = Tanh(h) }", W=(3, 4))
    assert "shape" in of("invalid-onnx", checked(model, tmp_path).findings)[0].message.lower()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("min = 22", "it uses operator set 21, and the oldest allowed is 22"),
        ("max = 20", "it uses operator set 21, and the newest allowed is 20"),
        ("min = 21, max = 21", None),
    ],
)
def test_the_operator_set_must_be_in_range(options: str, message: str | None, tmp_path: Path) -> None:
    found = checked(perceptron(), tmp_path, f"{QUICK}rules.opset-range = {{ {options} }}\n")
    assert [one.message for one in of("opset-range", found.findings)] == ([] if message is None else [message])


def test_an_operator_of_an_unknown_domain_is_named_once_with_its_count(tmp_path: Path) -> None:
    model = build("(float[N,3] x) => (float[N,3] y) { [one] h = my.domain.Magic(x) [two] y = my.domain.Magic(h) }")
    found = checked(model, tmp_path)
    domain = of("unknown-domain", found.findings)
    assert [(one.message, one.node) for one in domain] == [
        ("the operator my.domain::Magic is of a domain that ONNX Runtime does not know, 2 times", "one")
    ]


def test_tensors_that_nothing_reads_are_named_with_their_size(tmp_path: Path) -> None:
    model = perceptron()
    for name in ("lost", "forgotten"):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((256, 2), np.float32), name))
    message = of("unused-initializer", checked(model, tmp_path).findings)[0].message
    assert message == "2 initializers are read by no node (4 KiB): 'lost', 'forgotten'"


def test_a_tensor_that_only_a_body_reads_is_used(tmp_path: Path) -> None:
    body = "then_branch = g1 () => (float[N,4] t) { t = MatMul(x, W) }, else_branch = g2 () => (float[N,4] e) { e = MatMul(x, V) }"  # noqa: E501
    graph = f"(float[N,3] x, bool c) => (float[N,4] y) {{ y = If (c) <{body}> }}"
    assert of("unused-initializer", checked(build(graph, W=(3, 4), V=(3, 4)), tmp_path).findings) == []


def broken_raw(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]


def broken_list(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1.0] * (tensor.dims[0] * tensor.dims[1] - 1))


def broken_declaration(model: onnx.ModelProto) -> None:
    model.graph.value_info.append(helper.make_tensor_value_info("W", TensorProto.FLOAT, [3, 5]))


@pytest.mark.parametrize(
    ("change", "width", "rule", "message"),
    [
        (broken_raw, 2000, "weight-data", "the shape [3, 2000] and the type FLOAT, 24,000 bytes, and holds 23,996"),
        (broken_list, 2000, "weight-data", "the shape [3, 2000] and the type FLOAT, 6,000 entries, and holds 5,999"),
        (broken_raw, 4, "unreadable", "the shape [3, 4] and the type FLOAT, 48 bytes, and holds 44"),
        (broken_list, 4, "unreadable", "the shape [3, 4] and the type FLOAT, 12 entries, and holds 11"),
    ],
)
def test_data_that_does_not_fit_its_shape(change: object, width: int, rule: str, message: str, tmp_path: Path) -> None:
    model = perceptron(width=width)
    change(model)  # type: ignore[operator]
    [found] = of(rule, checked(model, tmp_path).findings)
    assert f"tensor 'W' declares {message}" in found.message


def test_a_shape_that_the_graph_declares_otherwise(tmp_path: Path) -> None:
    model = perceptron()
    broken_declaration(model)
    message = "tensor 'W' has the shape [3, 4], and the graph declares [3, 5]"
    assert message in [one.message for one in of("weight-data", checked(model, tmp_path).findings)]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (None, "the file 'w.data', which holds the data of its tensors, is missing"),
        (40, "tensor 'W' should end at byte 48 of 'w.data', which has 40"),
        (48, None),
    ],
)
def test_external_data_is_looked_at_without_reading_it(size: int | None, message: str | None, tmp_path: Path) -> None:
    model = external(build("(float[N,3] x) => (float[N,4] y) { h = MatMul(x, W) y = Tanh(h) }"), "w.data", W=(3, 4))
    if size is not None:
        (tmp_path / "w.data").write_bytes(bytes(size))
    found = checked(model, tmp_path)
    assert [one.message for one in of("weight-data", found.findings)] == ([] if message is None else [message])
    assert "invalid-onnx" not in rules(found)


@pytest.mark.parametrize("form", ["default", "old"])
def test_a_folded_export_is_told_from_the_unfolded_one(form: str, tmp_path: Path) -> None:
    folded = checked(stored_export(f"torch-resnet18.{form}.onnx", tmp_path), tmp_path)
    found = of("folded-batchnorm", folded.findings)
    assert "20 BatchNormalizations were folded" in found[0].message
    assert found[0].severity is Severity.WARNING
    assert "optimize=False" in found[0].fix
    unfolded = checked(stored_export("torch-resnet18.unfolded.onnx", tmp_path), tmp_path)
    assert "folded-batchnorm" not in rules(unfolded)


def test_folding_is_found_where_scoring_is_told_to_restore_nothing(tmp_path: Path) -> None:
    path = stored_export("torch-resnet18.default.onnx", tmp_path)
    found = checked(path, tmp_path, 'score = { batch = 8, restore-batchnorm = "none" }\n')
    assert "folded-batchnorm" in rules(found)


def test_a_graph_that_looks_the_same_either_way_is_a_note(tmp_path: Path) -> None:
    found = checked(chain(), tmp_path)
    doubts = of("maybe-folded-batchnorm", found.findings)
    assert [(one.severity, one.node) for one in doubts] == [(Severity.NOTE, "conv0")]
    assert doubts[0].message.startswith("9 convolutions ")
    assert "folded-batchnorm" not in rules(found)


@pytest.mark.parametrize(("batch", "message"), [("1", "the batch is fixed to 1"), ("6", "the batch is fixed to 6")])
def test_a_fixed_batch(batch: str, message: str, tmp_path: Path) -> None:
    model = build(f"(float[{batch},3] x) => (float[{batch},4] y) {{ h = MatMul(x, W) y = Tanh(h) }}", W=(3, 4))
    assert [one.message for one in of("fixed-batch", checked(model, tmp_path).findings)] == [message]


TRAINING = {
    "dropout": ("d, m = Dropout(h, ratio, yes)", "drops entries at random"),
    "norm": ("d, m, v = BatchNormalization <training_mode = 1> (h, s, b, mean, var)", "statistics of the minibatch"),
    "written out": ("u = RandomUniformLike(h) d = Mul(h, u)", "draws random numbers"),
    "evaluation": ("d, m = Dropout(h, ratio, no)", None),
    "stored": ("d = BatchNormalization (h, s, b, mean, var)", None),
}


@pytest.mark.parametrize("kind", TRAINING)
def test_what_only_training_needs(kind: str, tmp_path: Path) -> None:
    node, message = TRAINING[kind]
    outputs = ", float[4] m, float[4] v" if kind == "norm" else ""
    graph = f"(float[N,3] x) => (float[N,4] y{outputs}) {{ h = MatMul(x, W) [one] {node} y = Tanh(d) }}"
    vectors = {name: np.full(4, 2.0, np.float32) for name in ("s", "b", "mean", "var")} if "Batch" in node else {}
    flags = {"ratio": np.array(0.5, np.float32), "yes": np.array(True), "no": np.array(False)}
    used = {name: array for name, array in flags.items() if f"{name}" in node} | vectors
    found = of("training-mode", checked(build(graph, W=(3, 4), **used), tmp_path).findings)
    if message is None:
        assert found == []
    else:
        assert len(found) == 1
        assert message in found[0].message
        assert found[0].node == "one"


def test_a_model_without_weights(tmp_path: Path) -> None:
    model = build("(float[N,3] x) => (float[N,3] y) { y = Tanh(x) }")
    assert "no-weights" in rules(checked(model, tmp_path))


def test_a_status_that_is_not_ok_says_why_and_what_to_do(tmp_path: Path) -> None:
    assert checked(ROOT / "models" / "lstm.onnx", tmp_path).findings == ()
    settings = 'score = { batch = 8, arithmetic = "float32" }\n'
    found = of("score-status", checked(ROOT / "models" / "lstm.onnx", tmp_path, settings).findings)[0]
    assert found.message.startswith("the status is underflow: with weights 1 ")
    assert 'score.arithmetic = "auto"' in found.fix


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("parameter-budget = { max = 21 }", "it has 22 parameters, and 21 are allowed, 4.8% more"),
        ("parameter-budget = { max = 22 }", None),
        ("multiply-add-budget = { max = 19 }", "it has 20 multiply-adds for one sample, and 19 are allowed, 5.3% more"),
        ("multiply-add-budget = { max = 20 }", None),
        ('size-budget = { max = "0.1 KB" }', "bytes, external data included, and 100 are allowed"),
        ('size-budget = { max = "1 MiB" }', None),
    ],
)
def test_budgets(budget: str, message: str | None, tmp_path: Path) -> None:
    found = checked(perceptron(), tmp_path, f"{QUICK}rules.{budget}\n")
    messages = [one.message for one in of(budget.partition(" ")[0], found.findings)]
    if message is None:
        assert messages == []
    else:
        assert len(messages) == 1
        assert message in messages[0]


def test_external_data_counts_for_the_size(tmp_path: Path) -> None:
    model = external(build("(float[N,3] x) => (float[N,4] y) { h = MatMul(x, W) y = Tanh(h) }"), "w.data", W=(3, 4))
    (tmp_path / "w.data").write_bytes(bytes(10**6))
    found = checked(model, tmp_path, f'{QUICK}rules.size-budget = {{ max = "1 MB" }}\n')
    assert "size-budget" in rules(found)


def test_a_model_that_cannot_be_prepared_is_said_once(tmp_path: Path) -> None:
    model = build("(float[3] x) => (float[4] y) { h = MatMul(x, W) y = Tanh(h) }", W=(5, 4))
    found = checked(model, tmp_path)
    assert len({one.message for one in found.findings}) == len(found.findings)
    assert {"invalid-onnx", "score-status"} <= set(rules(found))


def test_what_nobody_foresaw_costs_one_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("so odd")

    monkeypatch.setattr("epsinas_onnx.check.model.canonical_graph", fails)
    monkeypatch.setattr("epsinas_onnx.check.model.declared_opset", fails)
    found = checked(perceptron(), tmp_path)
    assert [one.message for one in found.findings] == [
        "unexpected ZeroDivisionError in the rule opset-range: so odd; please report this file"
    ]
    assert (found.facts.fingerprint, found.facts.status) == (None, "ok")


def test_names_are_stable() -> None:
    assert list(RULES) == [
        "unreadable", "invalid-onnx", "opset-range", "unknown-domain", "unused-initializer", "weight-data",
        "unjudged-operator", "folded-batchnorm", "maybe-folded-batchnorm", "fixed-batch", "training-mode",
        "no-weights", "score-status", "missing-baseline", "score-baseline", "graph-baseline", "parameter-budget",
        "multiply-add-budget", "size-budget",
    ]  # fmt: skip
