"""`search`: a run from the command line in every form, what is written, and what is said of wrong words."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from epsinas_exporters import spaces
from tests.builders import Done, command

SPACE = "nasbench201"
QUICK = ("--batch", "8", "--provider", "cpu", "--population", "5", "--tournament", "2")


class Links(HTMLParser):
    """What a page loads or leads to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [str(value) for name, value in attrs if name in ("src", "href")]


def search(*args: str, code: int = 0) -> Done:
    done = command("search", SPACE, *QUICK, *args)
    assert done.code == code, done.err
    return done


def accuracies(path: Path) -> Path:
    """Return a table of the whole space in which more 3x3 convolutions are better."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arch", "test"])
        writer.writerows([arch, 50 + arch.count("3x3") - arch.count("none")] for arch in spaces.get(SPACE).enumerate())
    return path


def test_a_ranked_list_and_every_file(tmp_path: Path) -> None:
    files = {name: tmp_path / f"found.{name}" for name in ("json", "csv", "html", "png")}
    done = search(
        "--trials", "9", "--top", "3", "-o", str(files["json"]), "--html", str(files["html"]),
        "--plot", str(files["png"]), "--storage", str(tmp_path / "s.db"),
    )  # fmt: skip
    lines = done.out.splitlines()
    assert lines[0].split() == ["#", "architecture", "epsinas", "trial"]
    assert [line.split()[0] for line in lines[1:4]] == ["1", "2", "3"]
    assert "9 trials, 9 different architectures of nasbench201" in done.out
    record = json.loads(files["json"].read_text())
    shown = [line.split()[1] for line in lines[1:4]]
    assert shown == [one["arch"] for one in record["ranked"][:3]]
    values = [one["values"]["epsinas"] for one in record["ranked"]]
    assert values == sorted(values, reverse=True)
    assert files["png"].read_bytes().startswith(b"\x89PNG")
    page = files["html"].read_text()
    assert "Search of nasbench201 for epsinas:max" in page
    links = Links()
    links.feed(page)
    assert links.found == []
    again = search("--trials", "9", "-o", str(files["csv"]), "--storage", str(tmp_path / "s.db"))
    assert "9 trials" in again.out
    rows = list(csv.DictReader(io.StringIO(files["csv"].read_text())))
    assert [row["arch"] for row in rows if row["place"]] == [one["arch"] for one in record["ranked"]]
    assert len(rows) == 9


def test_several_objectives_have_a_front(tmp_path: Path) -> None:
    done = search(
        "--objective", "epsinas", "--objective", "params", "--constraint", "params<=700k", "--sampler", "nsga2",
        "--trials", "12", "--html", str(tmp_path / "f.html"), "--plot", str(tmp_path / "f.svg"),
    )  # fmt: skip
    assert done.out.startswith("the Pareto front, by epsinas: ")
    rows = [line.split() for line in done.out.splitlines()[2:] if line[:1].isdigit() and "|" in line]
    params = [int(row[3].replace(",", "")) for row in rows]
    assert params == sorted(params, reverse=True)
    assert all(count <= 700_000 for count in params)


def test_accuracies_out_of_a_table_are_searched_and_compared(tmp_path: Path) -> None:
    table = accuracies(tmp_path / "table.csv")
    given = ("--accuracies", str(table), "--column", "test")
    alone = search(*given, "--objective", "accuracy", "--trials", "40")
    assert alone.out.splitlines()[1].split()[2].startswith("5")
    results = tmp_path / "results.jsonl"
    archs = spaces.get(SPACE).sample(60, 5)
    results.write_text(
        "".join(json.dumps({"model": a, "status": "ok", "score": float(a.count("3x3"))}) + "\n" for a in archs)
    )
    out = tmp_path / "rounds.json"
    done = search(
        *given, "--rounds", "4", "--trials", "20", "--warmup", "30", "--scores", str(results), "--guide", "epsinas",
        "-o", str(out), "--html", str(tmp_path / "r.html"), "--plot", str(tmp_path / "r.png"),
    )  # fmt: skip
    assert "random search, warm-up by epsinas" in done.out
    assert "only 60 of 15,625 architectures were scored for epsinas" in done.out
    curves = json.loads(out.read_text())["curves"]
    assert [len(one["median"]) for one in curves] == [20] * 4
    assert "Searches of nasbench201 for test" in (tmp_path / "r.html").read_text()


@pytest.mark.slow
def test_ctrl_c_shows_what_there_is_and_the_same_command_goes_on(tmp_path: Path) -> None:
    storage = tmp_path / "s.db"
    args = [
        sys.executable,
        "-m",
        "epsinas_onnx",
        "search",
        SPACE,
        *QUICK,
        "--trials",
        "5000",
        "--storage",
        str(storage),
    ]
    process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not storage.exists() or storage.stat().st_size == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Interrupted after" in err
    assert "keeps them, and the same command goes on" in err
    count = int(re.search(r"([\d,]+) trials, ", out)[1].replace(",", ""))  # type: ignore[index]
    done = search("--trials", str(count + 2), "--storage", str(storage))
    assert f"{count + 2:,} trials" in done.out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--sampler", "luck"], "there is no sampler 'luck'"),
        (["--objective", "beauty"], "there is nothing called 'beauty' to search for"),
        (["--objective", "accuracy"], "accuracy needs a table, --accuracies"),
        (["--constraint", "params<1"], "a constraint is written like"),
        (["--move", "sideways"], "there is no move 'sideways'; choose one of none, parent, child"),
        (["--sampler", "tpe", "--warmup", "3"], "warm-up and move are of evolution and random"),
        (["--population", "1"], "a population of 1"),
        (["--rounds", "3", "--warmup", "3"], "--rounds compares searches for accuracy, so it needs a table"),
        (["--guide", "swap", "--guide", "meco"], "one --guide leads a search; several are compared with --rounds"),
        (["-o", "found.txt"], "is neither a .json nor a .csv file"),
        (["--plot", "found.gif"], "a plot is a .png, .pdf or .svg file"),
        (["--scores", "missing.jsonl"], "missing.jsonl: there is no such file"),
    ],
)
def test_wrong_words_are_one_sentence(args: list[str], said: str) -> None:
    done = search(*args, code=2)
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_space_where_nothing_has_a_number_ends_with_3() -> None:
    done = search("--trials", "2", "--weights", "1e-30,1e-20", code=3)
    assert "2 without a value" in done.out


def test_results_of_other_settings_are_refused(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    arch = spaces.get(SPACE).form
    results.write_text(json.dumps({"model": arch, "status": "ok", "score": 1.0, "batch": 256}) + "\n")
    done = search("--scores", str(results), code=2)
    assert "holds results of other settings (batch 256, not 8)" in done.err
