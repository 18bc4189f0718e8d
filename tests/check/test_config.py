"""Configurations: where they are found, what wins, what is ignored, and what is wrong in them, in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from epsinas_onnx.check.config import find_config, load_config
from epsinas_onnx.check.finding import Severity
from epsinas_onnx.errors import UsageError
from tests.builders import build, perceptron
from tests.check.checking import QUICK, checked, of

FIXED = "(float[1,3] x) => (float[1,4] y) { [first] h = MatMul(x, W) y = Tanh(h) }"


def write(folder: Path, text: str, name: str = "epsinas-onnx.toml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def test_the_nearest_configuration_counts_and_a_pyproject_without_our_table_does_not(tmp_path: Path) -> None:
    write(tmp_path, '[tool.epsinas-onnx]\nfail-on = "note"\n', "pyproject.toml")
    inner = write(tmp_path / "a" / "b", "[tool.other]\n", "pyproject.toml").parent
    assert find_config(inner).file == tmp_path / "pyproject.toml"
    assert find_config(inner).fail_on is Severity.NOTE
    write(tmp_path / "a", 'fail-on = "warning"\n')
    assert find_config(inner).fail_on is Severity.WARNING
    write(tmp_path / "a", '[tool.epsinas-onnx]\nfail-on = "note"\n', "pyproject.toml")
    assert find_config(inner).fail_on is Severity.WARNING, "epsinas-onnx.toml comes before pyproject.toml"


def test_without_a_configuration_the_rules_have_their_own_severity(tmp_path: Path) -> None:
    config = find_config(tmp_path)
    assert (config.file, config.fail_on, config.baseline) == (None, Severity.ERROR, None)
    assert config.settings_for("a.onnx").rules["fixed-batch"].severity is Severity.WARNING


def test_globs_start_at_the_configuration_and_later_ones_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(
        tmp_path,
        """
        score = { batch = 8, weights = [1e-3, 1] }
        rules.fixed-batch = "off"
        rules.opset-range = { min = 13, max = 21 }

        [[paths]]
        pattern = "edge/*"
        score = { batch = 4 }
        rules = { fixed-batch = "error", opset-range = { max = 17 } }

        [[paths]]
        pattern = "edge/old/*"
        rules = { fixed-batch = "note" }
        """,
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = load_config(file)
    plain, edge, old = (config.settings_for(f"../{path}") for path in ("a.onnx", "edge/b.onnx", "edge/old/c.onnx"))
    assert "fixed-batch" not in plain.rules
    assert edge.rules["fixed-batch"].severity is Severity.ERROR
    assert old.rules["fixed-batch"].severity is Severity.NOTE
    assert [one.score.batch for one in (plain, edge, old)] == [8, 4, 4]
    assert edge.score.weights == (1e-3, 1.0)
    assert edge.rules["opset-range"].options.model_dump() == {"min": 13, "max": 17}
    assert edge.path == "edge/b.onnx"


def test_ignored_findings_keep_their_reason(tmp_path: Path) -> None:
    ignore = '[[ignore]]\nrule = "fixed-batch"\npath = "*model.onnx"\nreason = "a device takes one at a time"\n'
    model = build(FIXED, W=(3, 4))
    found = of("fixed-batch", checked(model, tmp_path, QUICK + ignore).findings)
    assert [one.ignored for one in found] == ["a device takes one at a time"]
    assert checked(model, tmp_path, QUICK + ignore.replace("*model", "other")).counting() != ()


def test_an_ignore_may_name_a_node(tmp_path: Path) -> None:
    model = build("(float[N,3] x) => (float[N,3] y) { [one] h = my.domain.A(x) [two] y = my.domain.B(h) }")
    ignore = '[[ignore]]\nrule = "unknown-domain"\nnode = "on*"\nreason = "ours"\n'
    found = of("unknown-domain", checked(model, tmp_path, QUICK + ignore).findings)
    assert {one.node: one.ignored for one in found} == {"one": "ours", "two": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fail-on = 'fatal'", "fail-on: Input should be 'error', 'warning' or 'note'"),
        ("fail = 'error'", "fail: there is no such setting"),
        ("rules.folded = 'error'", "there is no rule 'folded'; the rules are unreadable, invalid-onnx"),
        ("rules.fixed-batch = 'fatal'", "has the severity 'fatal'; choose error, warning, note or off"),
        ("rules.fixed-batch = 3", "rules.fixed-batch takes a severity, or a table, not 3"),
        (
            "rules.opset-range = { least = 3 }",
            "rules.opset-range.least: there is no such setting; it takes severity, min, max",
        ),
        ("rules.size-budget = { max = 'large' }", "rules.size-budget.max: "),
        ("score = { batch = 1 }", "score.batch: Input should be greater than or equal to 2"),
        ("score = { weights = [1, 1] }", "the constants 1 and 1 are equal in float32"),
        ("score = { roles = { x = 'wait' } }", "there is no role 'wait'"),
        ("[[ignore]]\nrule = 'fixed-batch'", "ignore.0.reason: Field required"),
        ("[[ignore]]\nrule = 'fixed-batch'\nreason = ''", "ignore.0.reason: "),
        ("[[ignore]]\nrule = 'fixed'\nreason = 'x'", "there is no rule 'fixed'"),
        ("[[paths]]\npattern = 'a'\nrules = { opset-range = { min = 'x' } }", "rules.opset-range.min: "),
        ("[[paths]]\npattern = 'a'\nscore = { batch = 'x' }", "score.batch: "),
        ("fail-on", "is no TOML"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_its_place(text: str, message: str, tmp_path: Path) -> None:
    file = write(tmp_path, text)
    with pytest.raises(UsageError) as raised:
        load_config(file)
    assert str(file) in str(raised.value)
    assert message in str(raised.value)


def test_a_file_without_our_table_or_without_existence_is_refused_where_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no table \[tool.epsinas-onnx\]"):
        load_config(write(tmp_path, "", "pyproject.toml"))
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load_config(tmp_path / "lost.toml")


def test_the_severity_of_the_configuration_is_that_of_the_finding(tmp_path: Path) -> None:
    found = checked(build(FIXED, W=(3, 4)), tmp_path, f'{QUICK}rules.fixed-batch = "error"\n')
    assert [one.severity for one in found.findings] == [Severity.ERROR]
    assert checked(perceptron(), tmp_path, f'{QUICK}rules.score-status = "off"\n').facts.status is None
