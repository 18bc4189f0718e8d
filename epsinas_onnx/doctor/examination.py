"""Puts an examination together: what was found, and what is wrong or slow with what to do about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from epsinas_onnx._util.install import pip_install
from epsinas_onnx._util.memory import available_bytes, readable
from epsinas_onnx.doctor import machine, speed
from epsinas_onnx.doctor.providers import ProviderState, try_providers
from epsinas_onnx.errors import MissingRuntime
from epsinas_onnx.evaluate_lumped.fused.compiled import failure
from epsinas_onnx.runtime import cores
from epsinas_onnx.runtime.libraries import CUDA
from epsinas_onnx.runtime.providers import CPU

_LITTLE_MEMORY = 2 * 2**30
_SLOW_IMPORT = 3.0
_SLOW_PRODUCT = 4.0
_SLOW_RUNTIME = 1.0


class Level(StrEnum):
    """How much a finding matters."""

    ERROR = "error"
    """Nothing can be scored."""
    WARNING = "warning"
    """Something that was installed does not work."""
    SLOW = "slow"
    """Scores are right, and take longer than they need."""


@dataclass(frozen=True)
class Finding:
    """Something wrong or slow: one sentence with what to do."""

    level: Level
    text: str


@dataclass(frozen=True)
class Examination:
    """What `examine` found. Frozen; `to_dict()` is its JSON record.

    Attributes:
        platform: Python, system and processor.
        packages: versions of what is installed, by the name of the package.
        cores: how many cores this process may run on.
        quota: how many cores' time a container's limit leaves, None without one.
        memory: bytes that can still be allocated.
        blas: NumPy's libraries of linear algebra: `internal_api`, `version`, `num_threads`, `architecture`.
        providers: the execution providers that ONNX Runtime lists, and whether they run a graph.
        import_seconds: until a new Python can score; None where that was not measured.
        gigaflops: multiply-adds of NumPy's matrix product on one thread, in thousands of millions a second.
        score_seconds: of each stage of a score of a small network; empty where none could be scored.
        findings: what is wrong or slow.
    """

    platform: str
    packages: Mapping[str, str]
    cores: int
    quota: float | None
    memory: int
    blas: Sequence[Mapping[str, object]]
    providers: Sequence[ProviderState]
    import_seconds: float | None
    gigaflops: float
    score_seconds: Mapping[str, float]
    findings: Sequence[Finding]

    @property
    def works(self) -> bool:
        """Return whether anything can be scored."""
        return all(finding.level is not Level.ERROR for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types only."""
        record = dataclasses.asdict(self)
        record["findings"] = [{"level": str(one.level), "text": one.text} for one in self.findings]
        record["packages"], record["score_seconds"] = dict(self.packages), dict(self.score_seconds)
        return record


def examine() -> Examination:
    """Examine this machine and installation; takes a few seconds, and changes nothing."""
    findings: list[Finding] = []
    packages = machine.packages()
    providers: Sequence[ProviderState] = ()
    try:
        providers = try_providers()
    except MissingRuntime as error:
        findings.append(Finding(Level.ERROR, str(error)))
    seconds: Mapping[str, float] = {}
    if any(state.works for state in providers):
        seconds = speed.score_seconds()
    found = Examination(
        machine.platform_text(), packages, cores.cores(), cores.quota(), available_bytes(), machine.blas(),
        providers, speed.import_seconds(), speed.gigaflops(), seconds, (),
    )  # fmt: skip
    return dataclasses.replace(found, findings=(*findings, *_findings(found)))


def _findings(found: Examination) -> list[Finding]:
    """Return what is wrong or slow about what was measured."""
    findings = []

    def say(level: Level, text: str) -> None:
        findings.append(Finding(level, text))

    both = [name for name in ("onnxruntime", "onnxruntime-gpu") if name in found.packages]
    if len(both) == 2:
        say(
            Level.WARNING,
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; run 'pip uninstall "
            "onnxruntime onnxruntime-gpu' and install one of them",
        )
    for state in found.providers:
        if not state.works:
            level = Level.ERROR if state.name == CPU else Level.WARNING
            say(level, f"{state.name} is listed and does not run: {state.reason}")
    if both == ["onnxruntime-gpu"] and not any(state.name == CUDA for state in found.providers):
        say(
            Level.WARNING,
            f"onnxruntime-gpu is installed, and lists no {CUDA}; install it anew with '{pip_install('gpu')}'",
        )
    if useless := failure():
        say(Level.WARNING, f"numba is installed and of no use, NumPy does its work: {useless}")
    if found.quota is not None and found.quota < found.cores:
        say(
            Level.SLOW,
            f"a container's limit leaves the time of {found.quota:.2g} cores, and {found.cores} are seen; use --jobs "
            f"{max(1, int(found.quota))}, more only wait",
        )
    if found.memory < _LITTLE_MEMORY:
        say(
            Level.SLOW,
            f"{readable(found.memory)} of memory are left; large models will be refused, so use a smaller --batch",
        )
    if found.import_seconds is not None and found.import_seconds > _SLOW_IMPORT:
        say(
            Level.SLOW,
            f"starting Python and importing takes {found.import_seconds:.1f} s; the disk is slow, or the packages have "
            f"no compiled files (python -m compileall); score many files by one command",
        )
    if found.gigaflops < _SLOW_PRODUCT:
        say(
            Level.SLOW,
            f"NumPy does {found.gigaflops:.1f} thousand million multiply-adds a second on one thread; its linear "
            f"algebra may lack kernels for this processor ({_libraries(found)})",
        )
    if sum(found.score_seconds.values()) > _SLOW_RUNTIME:
        slowest = max(found.score_seconds, key=lambda stage: found.score_seconds[stage])
        say(
            Level.SLOW,
            f"a small network takes {sum(found.score_seconds.values()):.1f} s, most of it in '{slowest}'; the machine "
            f"is busy or slow",
        )
    return findings


def _libraries(found: Examination) -> str:
    return ", ".join(f"{one['internal_api']} {one['version']}" for one in found.blas) or "none was found"
