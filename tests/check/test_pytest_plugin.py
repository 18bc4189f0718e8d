"""The pytest plugin, run by pytest itself in new processes: what is collected, what fails, warns and is reported."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.builders import build, perceptron, save
from tests.check.checking import ABORTS

pytest_plugins = ("pytester",)

FIXED = "(float[1,3] x) => (float[1,4] y) { [first] h = MatMul(x, W) y = Tanh(h) }"


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """Return a project with a test, a good model, and one whose batch is fixed."""
    pytester.path.joinpath("epsinas-onnx.toml").write_text("score = { batch = 8 }\n")
    pytester.makepyfile(test_own="def test_own(): pass")
    save(perceptron(), pytester.path / "models" / "good.onnx")
    save(build(FIXED, W=(3, 4)), pytester.path / "models" / "fixed.onnx")
    return pytester


def run(project: pytest.Pytester, *words: str) -> tuple[pytest.RunResult, dict[str, int]]:
    done = project.runpytest_subprocess(*words)
    return done, done.parseoutcomes()


@pytest.mark.slow
def test_models_are_tests_beside_the_project_s_own(project: pytest.Pytester) -> None:
    done, outcomes = run(project, "--onnx", "models", "-v")
    assert outcomes == {"passed": 3, "warnings": 1}
    done.stdout.fnmatch_lines(["models/fixed.onnx::check PASSED*", "models/good.onnx::check PASSED*"])
    done.stdout.fnmatch_lines(["*CheckWarning: fixed-batch: the batch is fixed to 1*"])
    assert done.ret == 0


def test_without_the_option_no_model_is_collected(project: pytest.Pytester) -> None:
    assert run(project)[1] == {"passed": 1}
    assert run(project, "models")[1] == {}


@pytest.mark.slow
def test_one_file_may_be_named_and_nothing_is_run_twice(project: pytest.Pytester) -> None:
    assert run(project, "--onnx", "models/good.onnx", "--onnx", "models", "test_own.py")[1]["passed"] == 3
    assert run(project, "--onnx", "models/good.onnx", "test_own.py")[1] == {"passed": 2}


def test_what_fails_says_the_rule_and_the_fix_and_no_traceback(project: pytest.Pytester) -> None:
    project.path.joinpath("epsinas-onnx.toml").write_text('rules.fixed-batch = "error"\nscore = { batch = 8 }\n')
    project.path.joinpath("models", "broken.onnx").write_bytes(b"nothing")
    done, outcomes = run(project, "--onnx", "models", "--junit-xml", "junit.xml")
    assert outcomes == {"passed": 2, "failed": 2}
    assert done.ret == 1
    done.stdout.fnmatch_lines(
        ["fixed-batch (error): the batch is fixed to 1", "    fix: Export with a free batch: *",
         "FAILED models/broken.onnx::check - unreadable (error): is not an ONNX file*"]
    )  # fmt: skip
    assert "Traceback" not in done.stdout.str()
    assert "def runtest" not in done.stdout.str()
    cases = ElementTree.parse(project.path / "junit.xml").getroot().findall(".//testcase")
    failed = {case.get("classname") for case in cases if case.find("failure") is not None}
    assert failed == {"models.broken.onnx", "models.fixed.onnx"}
    good = next(case for case in cases if case.get("classname") == "models.good.onnx")
    facts = {one.get("name"): one.get("value") for one in good.iter("property")}
    assert facts["onnx_status"] == "ok"
    assert 0 < float(str(facts["onnx_score"])) < 2


@pytest.mark.slow
def test_models_and_configuration_may_stand_in_the_ini_file(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\nonnx_paths = models\n")
    project.path.joinpath("strict.toml").write_text('rules.fixed-batch = "error"\nscore = { batch = 8 }\n')
    assert run(project)[1] == {"passed": 3, "warnings": 1}
    assert run(project, "--onnx-config", "strict.toml")[1] == {"passed": 2, "failed": 1}


@pytest.mark.slow
def test_a_baseline_is_compared_with(project: pytest.Pytester) -> None:
    from tests.builders import command

    config = 'baseline = "kept.json"\nscore = { batch = 8 }\n'
    project.path.joinpath("epsinas-onnx.toml").write_text(config)
    assert command("baseline", "write", "models").code == 0
    assert run(project, "--onnx", "models")[1] == {"passed": 3, "warnings": 1}
    save(perceptron("Sigmoid"), project.path / "models" / "good.onnx")
    done, outcomes = run(project, "--onnx", "models")
    assert outcomes["failed"] == 1
    done.stdout.fnmatch_lines(["score-baseline (error): the score is *", "graph-baseline (error): the graph is not *"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--onnx", "nowhere"), "--onnx: there is no file or folder nowhere"),
        (("--onnx", "models", "--onnx-config", "lost.toml"), "the configuration lost.toml cannot be read"),
    ],
)
def test_wrong_words_are_one_sentence(words: tuple[str, ...], message: str, project: pytest.Pytester) -> None:
    done = project.runpytest_subprocess(*words)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert message in done.stdout.str() + done.stderr.str()
    assert "Traceback" not in done.stdout.str() + done.stderr.str()


def test_the_fixture_scores_as_the_configuration_says(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_score="""
        import pytest
        from epsinas_onnx import ModelError, score

        def test_model(onnx_score):
            found = onnx_score("models/good.onnx")
            assert found.status == "ok" and found.batch == 8
            assert found.score == score("models/good.onnx", batch=8).score
            assert onnx_score("models/good.onnx", batch=4).batch == 4
            with pytest.raises(ModelError, match="there is no such file"):
                onnx_score("models/lost.onnx")
        """
    )
    assert run(project)[1] == {"passed": 2}


@pytest.mark.slow
def test_a_model_that_kills_its_process_fails_alone(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("sitecustomize.py").write_text(ABORTS.format("fixed.onnx"))
    monkeypatch.setenv("PYTHONPATH", str(project.path), prepend=":")
    done, outcomes = run(project, "--onnx", "models")
    assert outcomes == {"passed": 2, "failed": 1}
    done.stdout.fnmatch_lines(["*its worker process died twice (SIGABRT)*"])
