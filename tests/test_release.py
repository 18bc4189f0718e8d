"""What a release says of itself: one version everywhere, a README for the package index, and files that others read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager
from readme_renderer import markdown

import epsinas_onnx
from epsinas_onnx.check.baseline import written_by
from epsinas_onnx.versions import versions
from tests.builders import command
from tests.documentation.pages import ROOT, shown_files

MODEL = str(ROOT / "models" / "mlp.onnx")
TEMPLATES = [*(ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"), *(ROOT / ".gitlab" / "issue_templates").glob("*.md")]


@pytest.fixture(scope="module")
def metadata() -> Any:
    """Return the metadata that a wheel of this tree gets."""
    return ProjectMetadata(str(ROOT), PluginManager())


def test_there_is_one_version(metadata: Any) -> None:
    ours = epsinas_onnx.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", ours)
    assert metadata.version == ours
    assert versions()["epsinas-onnx"] == ours
    assert command("--version").out.splitlines()[0] == f"epsinas-onnx {ours}"
    assert epsinas_onnx.score(MODEL, batch=4).versions["epsinas-onnx"] == ours
    assert f"epsinas-onnx {ours}" in written_by()
    [run] = json.loads(command("check", MODEL, "--format", "sarif").out)["runs"]
    assert run["tool"]["driver"]["semanticVersion"] == ours


def test_documents_name_the_newest_release() -> None:
    released = re.search(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    newest = released[1] if released else epsinas_onnx.__version__.partition(".dev")[0]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == newest
    [repository] = yaml.safe_load(shown_files("docs/ci.md")[".pre-commit-config.yaml"])["repos"]
    assert repository["rev"] == f"v{newest}"
    assert re.findall(r"uses: \S*epsinas-onnx@(\S+)", shown_files("docs/ci.md")[".github/workflows/onnx.yml"]) == [
        f"v{newest}"
    ]


class Links(HTMLParser):
    """Collects where a page leads and what it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: list[str] = []
        self.pictures: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "a" and given.get("href"):
            self.pages.append(str(given["href"]))
        if tag == "img":
            self.pictures.append(str(given["src"]))


def links_of(text: str) -> Links:
    html = markdown.render(text)
    assert html is not None
    links = Links()
    links.feed(html)
    return links


def test_the_readme_leads_to_the_repository_from_the_package_index(metadata: Any) -> None:
    assert metadata.core.readme_content_type == "text/markdown"
    source, shown = links_of((ROOT / "README.md").read_text()), links_of(metadata.core.readme)
    repository = metadata.core.urls["Repository"]
    for ours, theirs, kind in ((source.pages, shown.pages, "blob"), (source.pictures, shown.pictures, "raw")):
        assert len(ours) == len(theirs) > 0
        for before, after in zip(ours, theirs, strict=True):
            if before.startswith(("http", "#")):
                assert after == before
            else:
                assert (ROOT / before.partition("#")[0]).is_file(), before
                assert after == f"{repository}/{kind}/v{metadata.version}/{before}"


def test_nothing_else_of_the_readme_changes(metadata: Any) -> None:
    base = f"{metadata.core.urls['Repository']}/KIND/v{metadata.version}/"
    back = metadata.core.readme
    for kind in ("blob", "raw"):
        back = back.replace(base.replace("KIND", kind), "")
    assert back == (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    ("schema", "path", "broken"),
    [
        ("citation-file-format", ROOT / "CITATION.cff", ("title:", "titel:")),
        ("github-issue-config", ROOT / ".github/ISSUE_TEMPLATE/config.yml", ("blank_issues_enabled:", "blank:")),
        *[
            ("github-issue-forms", path, ("type: textarea", "type: text"))
            for path in TEMPLATES
            if path.suffix == ".yml" and path.name != "config.yml"
        ],
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_what_hosts_read_is_valid(schema: str, path: Path, broken: tuple[str, str], tmp_path: Path) -> None:
    text = path.read_text()
    (tmp_path / "right.yml").write_text(text)
    (tmp_path / "wrong.yml").write_text(text.replace(*broken))
    for name, code in (("right.yml", 0), ("wrong.yml", 1)):
        check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(tmp_path / name)]
        done = subprocess.run(check, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout


def test_who_reports_is_asked_for_a_model_without_weights_and_names() -> None:
    asking = [path for path in TEMPLATES if path.name != "config.yml"]
    assert len(asking) == 4
    assert [path for path in asking if "epsinas-onnx strip --anonymise" not in path.read_text()] == []


def test_what_is_promised_about_files_from_strangers_names_the_tests_that_hold_it() -> None:
    rows = [line for line in (ROOT / "SECURITY.md").read_text().splitlines() if line.startswith("| ")][2:]
    for row in rows:
        tests = re.findall(r"`(tests/\S+\.py)`", row)
        assert tests, row
        assert [name for name in tests if not (ROOT / name).is_file()] == []


def test_the_container_copies_all_that_the_package_is_built_from(tmp_path: Path) -> None:
    sources = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Containerfile").read_text(), re.MULTILINE)
    skip = shutil.ignore_patterns("__pycache__")
    for name in " ".join(sources).split():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / "source" / name, ignore=skip)
        else:
            (tmp_path / "source").mkdir(exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "source")
    built = []
    for root in (ROOT, tmp_path / "source"):
        [wheel] = WheelBuilder(str(root)).build(directory=str(tmp_path / root.name))
        with zipfile.ZipFile(wheel) as files:
            built.append({one.filename: one.CRC for one in files.infolist()})
    assert built[0] == built[1]
    assert {"epsinas_onnx/py.typed", "epsinas_exporters/__init__.py"} <= set(built[0])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("epsinas-onnx insp", ["inspect"]),
        ("epsinas-onnx score --no-l", ["--no-lump"]),
        ("epsinas-onnx check --format sa", ["sarif"]),
    ],
)
def test_a_shell_is_told_how_words_go_on(words: str, expected: list[str]) -> None:
    variables = {"_EPSINAS_ONNX_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    code = f"import os, sys; os.environ |= {variables!r}; sys.argv = ['epsinas-onnx']\n"
    code += "from epsinas_onnx.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == expected, done.stderr
