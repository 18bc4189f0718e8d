"""A folder with one of everything that commands read, for the tests of what they write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.builders import PERCEPTRON, build, external, perceptron, save

ARCHS = (
    "|nor_conv_1x1~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|none~2|",
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    "|skip_connect~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|none~2|",
)
EVALUATE = (
    "evaluate", "table.csv", "--space", "nasbench201", "--column", "accuracy", "--resamples", "0", "--batch", "4",
)  # fmt: skip
MODEL, DATA = "models/m.onnx", "models/w.bin"


def everything(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put one of everything into `folder`, and let the test run there."""
    monkeypatch.chdir(folder)
    save(external(build(PERCEPTRON, V=(4, 2), B=(2,)), "w.bin", W=(3, 4)), folder / MODEL)
    Path(DATA).write_bytes(bytes(48))
    save(perceptron(), Path("good.onnx"))
    save(perceptron(), Path("net.onnx"))
    np.save("fed.npy", np.ones((2, 3), np.float32))
    Path("images").mkdir()
    Path("images/a.png").write_bytes(b"a picture")
    Path("own.toml").write_text("[score]\ninput = 'fed.npy'\n")
    Path("base.json").write_text('{"models": {}}')
    rows = "".join(f"{arch},{number}\n" for number, arch in enumerate(ARCHS))
    Path("table.csv").write_text("arch,accuracy\n" + rows)
    Path("other.csv").write_text("arch,flops\n" + rows)
    Path("earlier.jsonl").write_text("".join(f'{{"model": "{arch}", "score": 1.0}}\n' for arch in ARCHS))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def filled(args: Sequence[str], out: str) -> list[str]:
    return [arg.replace("{out}", out) for arg in args]
