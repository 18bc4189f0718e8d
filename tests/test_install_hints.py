"""Hints on what to install say what the reader would have to type, from wherever the package came."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from epsinas_onnx._util.install import pip_install

PACKAGES = Path(__file__).parents[1] / "epsinas_onnx", Path(__file__).parents[1] / "exporters"
GIT = {"vcs": "git", "commit_id": "0" * 40}


@pytest.fixture
def installed_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes the package look as if it had been installed from somewhere."""

    def install(origin: dict[str, Any] | str | None) -> None:
        folder = tmp_path / "epsinas_onnx-9.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: epsinas-onnx\nVersion: 9\n")
        if origin is not None:
            (folder / "direct_url.json").write_text(origin if isinstance(origin, str) else json.dumps(origin))
        monkeypatch.syspath_prepend(str(tmp_path))

    return install


@pytest.mark.parametrize("origin", [None, "", "not json", "[]"])
def test_the_index_has_the_package_by_its_name(installed_from: Any, origin: str | None) -> None:
    installed_from(origin)
    assert pip_install("cpu") == 'pip install "epsinas-onnx[cpu]"'


@pytest.mark.parametrize("folder", ["/home/me/clone", "/home/me/my clone", '/home/$me/"x"', "/home/it's"])
def test_a_clone_is_named_by_its_folder(installed_from: Any, folder: str) -> None:
    installed_from({"url": Path(folder).as_uri(), "dir_info": {"editable": True}})
    assert shlex.split(pip_install("gpu")) == ["pip", "install", "-e", f"{folder}[gpu]"]


def test_a_folder_that_was_copied_is_no_editable_one(installed_from: Any) -> None:
    installed_from({"url": "file:///home/me/clone", "dir_info": {}})
    assert pip_install("cpu") == 'pip install "/home/me/clone[cpu]"'


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        ({"url": "https://a.example/x.git", "vcs_info": GIT}, "git+https://a.example/x.git"),
        (
            {"url": "ssh://git@a.example/x", "vcs_info": {**GIT, "requested_revision": "v1"}, "subdirectory": "p"},
            "git+ssh://git@a.example/x@v1#subdirectory=p",
        ),
        ({"url": "file:///tmp/e-9-py3-none-any.whl", "archive_info": {}}, "file:///tmp/e-9-py3-none-any.whl"),
    ],
)
def test_a_url_is_named_as_it_is(installed_from: Any, origin: dict[str, Any], url: str) -> None:
    installed_from(origin)
    pip, install, wanted = shlex.split(pip_install("images"))
    assert (pip, install) == ("pip", "install")
    found = Requirement(wanted)
    assert (found.name, found.extras, found.url) == ("epsinas-onnx", {"images"}, url)


def test_no_hint_is_written_by_hand() -> None:
    hints = [path for folder in PACKAGES for path in folder.rglob("*.py") if "epsinas-onnx[" in path.read_text("utf-8")]
    assert hints == []
