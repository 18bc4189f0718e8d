"""Tables and results that unpack to gigabytes, or are damaged: one sentence each."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from epsinas_exporters.readers import read_benchmark
from epsinas_onnx import UsageError
from epsinas_onnx._util.bounded import TooMuch, read_at_most
from epsinas_onnx.evaluation.scoring import read_records
from epsinas_onnx.evaluation.table import MOST_TEXT, read_table

PRINT_PEAK = """
import sys
from pathlib import Path
from epsinas_onnx import UsageError
from epsinas_onnx.evaluation.table import read_table
try:
    read_table(Path(sys.argv[1]))
except UsageError as error:
    print(str(error))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_table_that_unpacks_to_gigabytes_is_refused_by_a_sentence_and_not_unpacked(tmp_path: Path) -> None:
    piece = gzip.compress(bytes(2**26))
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"arch,accuracy\n") + piece * (3 * 2**30 // 2**26))
    path = str(tmp_path / "t.csv.gz")
    done = subprocess.run([sys.executable, "-c", PRINT_PEAK, path], capture_output=True, text=True, check=False)
    sentence, peak = done.stdout.splitlines()
    assert path in sentence
    assert "512 MiB of text, which is the most" in sentence
    assert int(peak) * 1024 < 1_500_000_000


@pytest.mark.parametrize("most", [0, 1, 4, 5, 6, 2**20, 2**20 + 1])
def test_as_much_is_read_as_may_be(most: int) -> None:
    for size in (0, 1, most, most + 1, 2 * most + 3):
        stream = io.BytesIO(bytes(size))
        if size > most:
            with pytest.raises(TooMuch):
                read_at_most(stream, most)
            assert stream.tell() <= most + 1
        else:
            assert read_at_most(stream, most) == bytes(size)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a file that never ends")
@pytest.mark.parametrize("name", ["zero.csv", "zero.jsonl"])
def test_a_file_that_never_ends_is_read_up_to_the_limit(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("/dev/zero")
    read = read_table if name.endswith(".csv") else read_records
    with pytest.raises(UsageError, match="the most that is read"):
        read(tmp_path / name)


def test_results_that_are_nested_without_end_are_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text("[" * 100_000)
    with pytest.raises(UsageError, match="holds no results"):
        read_records(tmp_path / "r.jsonl")


def test_a_training_log_that_unpacks_to_gigabytes_costs_its_own_row(tmp_path: Path) -> None:
    good = {"recepie": "{}", "status": "OK", "num_params": 3, "test_losses": [4.0], "val_losses": [5.0]}
    with zipfile.ZipFile(tmp_path / "logs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b.json", json.dumps(good))
        archive.writestr("c.json", "[" * 100_000)
        with archive.open("a.json", "w") as stream:
            for _ in range(80):
                stream.write(bytes(2**20))
    rows = read_benchmark(tmp_path / "logs.zip")
    assert [row["log_name"] for row in rows] == ["a.json", "b.json", "c.json"]
    assert rows[0]["status"] == "broken log: longer than 67,108,864 bytes"
    assert rows[1]["test_loss"] == "4.0"
    assert rows[2]["status"].startswith("broken log: RecursionError")


def test_the_limit_is_beyond_every_published_table() -> None:
    assert MOST_TEXT > 423_624 * 600  # NAS-Bench-101 with a row of 600 bytes each
