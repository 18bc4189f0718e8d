"""Paddle's networks as weightless graphs, through an interpreter that has Paddle (`EPSINAS_PADDLE_PYTHON`)."""

from __future__ import annotations

import os
import sys

import pytest

import same_network
from epsinas_exporters.frameworks import ExportError, Input
from epsinas_exporters.frameworks.paddle import export_network
from tests.builders import command
from tests.exporters.agreement import CONSTANTS, assert_same_scores

PADDLE = os.environ.get("EPSINAS_PADDLE_PYTHON")
with_paddle = pytest.mark.skipif(not PADDLE, reason="EPSINAS_PADDLE_PYTHON names no interpreter with Paddle")


@with_paddle
@pytest.mark.parametrize("weights", CONSTANTS)
def test_the_same_networks_score_the_same(weights: tuple[float, float]) -> None:
    assert_same_scores(same_network.from_paddle(), weights)


@with_paddle
def test_a_name_that_is_not_there_is_refused_in_a_sentence() -> None:
    with pytest.raises(ExportError, match=r"^json:lost: json has no 'lost'$"):
        export_network("json:lost", [Input((1, 8))], python=PADDLE)


def test_without_paddle_it_says_what_to_do() -> None:
    done = command("export", "paddle", "mynet:Net", "--input", "1,8")
    assert done.code == 2
    assert "--python paddle-env/bin/python" in done.err
    with pytest.raises(ExportError, match="lacks paddle; run it with -m pip install paddlepaddle"):
        export_network("json:loads", [Input((1, 8))], python=sys.executable)
    with pytest.raises(ExportError, match="no-such-python cannot be run: No such file"):
        export_network("json:loads", [Input((1, 8))], python="no-such-python")
