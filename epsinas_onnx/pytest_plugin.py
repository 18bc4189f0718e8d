"""A pytest plugin: `pytest --onnx models/` checks models as tests, and the fixture `onnx_score` scores them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from epsinas_onnx._util.text import printable, sentence, shown

if TYPE_CHECKING:
    from epsinas_onnx.check.baseline import Baseline
    from epsinas_onnx.check.config import Config
    from epsinas_onnx.check.finding import CheckedModel, Finding
    from epsinas_onnx.graph.load import ModelSource
    from epsinas_onnx.scoring.result import Score
    from epsinas_onnx.scoring.supervisor import Workers


class CheckWarning(UserWarning):
    """A finding that is not bad enough to fail a test."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options and the ini value of the plugin."""
    group = parser.getgroup("epsinas-onnx", "checks of ONNX models")
    group.addoption(
        "--onnx", action="append", default=[], metavar="PATH",
        help="Check the ONNX files here, or in the folders here, as tests; may be repeated.",
    )  # fmt: skip
    group.addoption("--onnx-config", metavar="FILE", help="The configuration; otherwise the nearest one.")
    parser.addini(
        "onnx_paths", "Files and folders with ONNX models to check, as with --onnx.", type="paths", default=[]
    )


def pytest_configure(config: pytest.Config) -> None:
    """Let pytest collect the models beside what it would collect anyway."""
    roots = [*map(Path, config.getoption("--onnx")), *config.getini("onnx_paths")]
    missing = [str(root) for root in roots if not root.exists()]
    if missing:
        raise pytest.UsageError(f"--onnx: there is no file or folder {', '.join(missing)}")
    config.stash[_ROOTS] = [root.resolve() for root in roots]
    if not roots:
        return
    from epsinas_onnx.errors import UsageError

    try:
        config.stash[_CHECKER] = _Checker(_config(config))
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    known = [Path(arg).resolve() for arg in config.args]
    config.args += [str(root) for root in roots if not any(root.resolve().is_relative_to(one) for one in known)]


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect an ONNX file that --onnx names, or that lies below a folder that it names."""
    roots = parent.config.stash[_ROOTS]
    if file_path.suffix == ".onnx" and any(file_path.resolve().is_relative_to(root) for root in roots):
        return OnnxFile.from_parent(parent, path=file_path)
    return None


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the worker process."""
    if _CHECKER in config.stash:
        config.stash[_CHECKER].close()


@pytest.fixture(scope="session")
def onnx_score(pytestconfig: pytest.Config) -> Callable[..., Score]:
    """Return a function that scores a model as the configuration says.

    It takes a model and the keyword arguments of `epsinas_onnx.score`, which win over the configuration's, and returns
    an `epsinas_onnx.Score`. It raises what `epsinas_onnx.score` raises.
    """
    from epsinas_onnx.graph.load import source_name
    from epsinas_onnx.scoring.api import score

    config = _config(pytestconfig)

    def scored(model: ModelSource, **options: Any) -> Score:
        settings = config.settings_for(source_name(model)).score
        return score(model, **{"providers": config.provider, **settings.keywords(), **options})

    return scored


class OnnxFile(pytest.File):
    """An ONNX file: one test."""

    def collect(self) -> Iterator[OnnxItem]:
        """Yield its test."""
        yield OnnxItem.from_parent(self, name="check")


class OnnxItem(pytest.Item):
    """The check of one model: fails where a finding is as bad as `fail-on`, warns of others."""

    def runtest(self) -> None:
        """Check the model in the session's worker process."""
        checker = self.config.stash[_CHECKER]
        checked = checker.check(self.path)
        for fact in ("score", "status", "fingerprint"):
            value = getattr(checked.facts, fact)
            if value is not None:
                self.user_properties.append((f"onnx_{fact}", str(value)))
        failing = []
        for finding in checked.counting():
            if finding.severity.reaches(checker.config.fail_on):
                failing.append(finding)
            else:
                self.warn(CheckWarning(f"{finding.rule}: {finding.message} ({finding.fix})"))
        if failing:
            raise ModelFails(failing)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return the findings; a traceback would be of this plugin."""
        if isinstance(excinfo.value, ModelFails):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return how a report calls the test."""
        where = Path(printable(str(self.path)))
        return where, 0, f"{shown(self.path.name)}: check"  # pytest warns of nothing without a line


class ModelFails(Exception):
    """A model has findings that fail; the message has two lines for each."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__(
            "\n".join(
                f"{one.rule} ({one.severity}): {sentence(one.message)}\n    fix: {sentence(one.fix)}"
                for one in findings
            )
        )


class _Checker:
    """What all checks of a session share: the configuration, the baseline, and a worker that survives no model."""

    def __init__(self, config: Config) -> None:
        from epsinas_onnx.check.baseline import read_baseline

        self.config = config
        self.baseline: Baseline | None = None if config.baseline is None else read_baseline(config.baseline)
        self.workers: Workers | None = None

    def check(self, path: Path) -> CheckedModel:
        """Check a model; one that ends the worker has a finding."""
        from epsinas_onnx.check.runner import check_one, failed, task_of
        from epsinas_onnx.scoring.limits import DEFAULT_TIMEOUT, Limits
        from epsinas_onnx.scoring.supervisor import Failure, Workers

        name = str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
        task = task_of(name, self.config, self.baseline)
        self.workers = self.workers or Workers(1, Limits(DEFAULT_TIMEOUT))
        found = self.workers.run(check_one, task)
        return failed(name, found) if isinstance(found, Failure) else found

    def close(self) -> None:
        """End the worker."""
        if self.workers is not None:
            self.workers.close()


def _config(config: pytest.Config) -> Config:
    """Return the configuration that --onnx-config names, or the nearest one to the project."""
    from epsinas_onnx.check.config import find_config, load_config

    given = config.getoption("--onnx-config")
    return load_config(Path(given)) if given else find_config(config.rootpath)


_ROOTS = pytest.StashKey[list[Path]]()
_CHECKER = pytest.StashKey[_Checker]()
