"""The benchmarks' own files, written here in their true format: what is read, and what damaged and hostile files do."""

from __future__ import annotations

import base64
import bz2
import collections
import csv
import functools
import gzip
import io
import itertools
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import tarfile
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epsinas_exporters import spaces
from epsinas_exporters.readers import is_benchmark_file, read_benchmark
from epsinas_exporters.readers.restricted import RefusedPickle, restricted_load
from epsinas_onnx._util.install import pip_install
from tests.builders import command

SHARED = Path(__file__).parents[3] / "shared" / "data"
ARCHS = [
    "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|",
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|",
    "|none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|",
]


# NATS-Bench and NAS-Bench-201


def run(seed: int, epochs: int, params: float, **accuracies: float) -> dict[str, Any]:
    """Return the state of one ResultsCount: what the benchmark stores of one training."""
    evaluated: dict[str, Any] = {}
    for split, accuracy in accuracies.items():
        name = split.replace("_", "-")
        evaluated[f"{name}@0"] = 10.0
        evaluated[f"{name}@{epochs - 1}"] = np.float64(accuracy)
    return {
        "name": "infer.tiny", "net_state_dict": None, "seed": seed, "epochs": epochs, "params": params, "flop": 7.78,
        "train_acc1es": {0: 30.0}, "arch_config": {"channel": 16, "num_cells": 5}, "latency": [0.01],
        "eval_names": list(accuracies), "eval_acc1es": evaluated, "eval_losses": {},
    }  # fmt: skip


def training(index: int, epochs: int, base: float) -> dict[str, Any]:
    """Return the state of one ArchResults."""
    results = collections.OrderedDict()
    for seed, more in ((777, 0.0), (888, 1.0)):
        results["cifar10", seed] = run(seed, epochs, 0.129306, ori_test=base + more)
        results["cifar100", seed] = run(seed, epochs, 0.14, x_valid=base - 20, x_test=base - 10 + more)
    results["cifar10-valid", 777] = run(777, epochs, 0.129306, x_valid=base - 5, ori_test=1.0)
    return {
        "arch_index": index, "arch_str": ARCHS[index], "all_results": results,
        "dataset_seed": {"cifar10": [777, 888], "cifar100": [777, 888], "cifar10-valid": [777]},
        "clear_net_done": True,
    }  # fmt: skip


def infos(index: int, names: tuple[str, str]) -> dict[str, Any]:
    return {names[0]: training(index, 12, 40.0), names[1]: training(index, 200, 80.0 + index)}


def benchmark(names: tuple[str, str] = ("12", "200")) -> dict[str, Any]:
    return {
        "meta_archs": ARCHS, "total_archs": 3, "evaluated_indexes": {0, 2},
        "arch2infos": {2: infos(2, names), 0: infos(0, names)},
    }  # fmt: skip


def expected(index: int) -> dict[str, str]:
    base = 80.0 + index
    return {
        "arch": ARCHS[index], "cifar10_valid": repr(base - 5), "cifar10_test": repr(base + 0.5),
        "cifar100_valid": repr(base - 20), "cifar100_test": repr(base - 9.5), "imagenet16_120_valid": "",
        "imagenet16_120_test": "", "params": "129306",
    }  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_nats_file_is_read(files: Path, protocol: int) -> None:
    path = files / "NATS-tss-v1_0-3ffb9.pickle.pbz2"
    path.write_bytes(bz2.compress(pickle.dumps(benchmark(), protocol)))
    assert read_benchmark(path) == [expected(0), expected(2)]
    plain = files / "NATS-tss.pickle"
    plain.write_bytes(pickle.dumps(benchmark(), protocol))
    assert read_benchmark(plain) == read_benchmark(path)


def test_a_nats_folder_is_read(files: Path) -> None:
    folder = files / "NATS-tss-v1_0-3ffb9-simple"
    folder.mkdir()
    (folder / "meta.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps({"meta_archs": ARCHS, "total_archs": 3})))
    for index in (0, 2):
        data = bz2.compress(pickle.dumps(infos(index, ("12", "200"))))
        (folder / f"{index:06d}.pickle.pbz2").write_bytes(data)
    assert read_benchmark(folder) == [expected(0), expected(2)]
    (folder / "000007.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps({})))
    with pytest.raises(ValueError, match=r"000007.*only 3 architectures"):
        read_benchmark(folder)
    (folder / "meta.pickle.pbz2").unlink()
    with pytest.raises(ValueError, match=r"no meta\.pickle\.pbz2"):
        read_benchmark(folder)


def test_sizes_take_the_longest_of_three_trainings(files: Path) -> None:
    path = files / "NATS-sss-v1_0-50262.pickle.pbz2"
    trainings = {"01": training(0, 1, 10.0), "90": training(0, 90, 70.0), "12": training(0, 12, 40.0)}
    data = {"meta_archs": ["8:8:8:8:8"], "arch2infos": {0: trainings}, "evaluated_indexes": {0}}
    path.write_bytes(bz2.compress(pickle.dumps(data)))
    (row,) = read_benchmark(path)
    assert (row["arch"], row["cifar10_test"]) == ("8:8:8:8:8", "70.5")
    assert spaces.get("nats-sss").from_row(row) == "8:8:8:8:8"


@pytest.mark.parametrize("zipped", [True, False])
def test_a_nasbench201_file_of_torch_is_read(files: Path, zipped: bool) -> None:
    torch = pytest.importorskip("torch", reason=".pth files are read with torch")
    path = files / "NAS-Bench-201-v1_1-096897.pth"
    torch.save(benchmark(("less", "full")), path, _use_new_zipfile_serialization=zipped)
    assert read_benchmark(path) == [expected(0), expected(2)]


def test_a_hostile_file_of_torch_runs_nothing(files: Path) -> None:
    torch = pytest.importorskip("torch", reason=".pth files are read with torch")
    path = files / "bad.pth"
    torch.save({"meta_archs": Exploit(os.system, f"touch {files / 'ran'}")}, path)
    with pytest.raises(ValueError, match="refuses what is in it"):
        read_benchmark(path)
    assert not (files / "ran").exists()


def test_only_files_of_torch_load_torch(files: Path) -> None:
    path = files / "a.pickle"
    path.write_bytes(pickle.dumps(benchmark()))
    code = (
        f"import sys; from epsinas_exporters.readers import read_benchmark; read_benchmark({str(path)!r}); "
        f"print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_torch_one_sentence_says_what_to_run(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (files / "a.pth").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=re.escape(pip_install("torch"))):
        read_benchmark(files / "a.pth")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cut off"),
        (pickle.dumps(benchmark())[:-40], "cut off|broken"),
        (b"not a pickle at all", "no pickle"),
        (pickle.dumps([1, 2]), "lacks meta_archs, arch2infos"),
        (pickle.dumps({"meta_archs": []}), "lacks arch2infos"),
        (pickle.dumps({"meta_archs": ARCHS, "arch2infos": {}}), "no evaluated architecture"),
        (pickle.dumps({"meta_archs": ARCHS, "arch2infos": {0: {"200": {}}}}), "not of the benchmark's form"),
    ],
)
def test_what_is_no_nats_file_is_refused(files: Path, content: bytes, words: str) -> None:
    for name, data in (("a.pickle", content), ("a.pickle.pbz2", bz2.compress(content))):
        (files / name).write_bytes(data)
        with pytest.raises(ValueError, match=words) as caught:
            read_benchmark(files / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    (files / "b.pickle.pbz2").write_bytes(bz2.compress(content)[:20])
    with pytest.raises(ValueError, match=r"b\.pickle\.pbz2"):
        read_benchmark(files / "b.pickle.pbz2")


# Hostile pickles


class Exploit:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def opcodes(text: str) -> bytes:
    """Return a pickle of protocol 0 out of its opcodes, `{file}` being a file that must not appear."""
    return text.replace("~", "\n").encode()


RAN = "ran"
EXPLOITS: dict[str, Callable[[Path], bytes]] = {
    "os.system": lambda ran: pickle.dumps(Exploit(os.system, f"touch {ran}")),
    "subprocess": lambda ran: pickle.dumps(Exploit(subprocess.call, ["touch", str(ran)])),
    "eval": lambda ran: pickle.dumps(Exploit(eval, f"open({str(ran)!r}, 'w').close()")),
    "exec": lambda ran: pickle.dumps(Exploit(exec, f"open({str(ran)!r}, 'w').close()")),
    "open": lambda ran: pickle.dumps(Exploit(open, str(ran), "w")),
    "getattr": lambda ran: pickle.dumps(Exploit(getattr, "", "__class__")),
    "partial": lambda ran: pickle.dumps(functools.partial(os.system, f"touch {ran}")),
    "map": lambda ran: pickle.dumps(Exploit(list, Exploit(map, os.system, [f"touch {ran}"]))),
    "numpy's test runner": lambda ran: opcodes(f"cnumpy.testing~runstring~(S'open(\"{ran}\",\"w\")'~}}tR."),
    "another codec": lambda ran: opcodes("c_codecs~encode~(S'text'~S'rot13'~tR."),
    "numpy.load": lambda ran: opcodes(f"cnumpy~load~(S'{ran}'~tR."),
    "numpy.memmap": lambda ran: pickle.dumps(Exploit(np.memmap, str(ran), "float32", "w+", 0, (4,))),
    "a dotted name": lambda ran: pickle.dumps(Exploit(np.ndarray.tofile, np.zeros(3), str(ran)), 4),
    "defaultdict": lambda ran: pickle.dumps(collections.defaultdict(functools.partial(os.system, f"touch {ran}"))),
    "python 2's builtins": lambda ran: opcodes(f"c__builtin__~eval~(S'open(\"{ran}\",\"w\")'~tR."),
    "INST": lambda ran: opcodes(f"(S'touch {ran}'~ios~system~."),
    "a class of its own": lambda ran: pickle.dumps(types.SimpleNamespace(a=1)),
    "persistent id": lambda ran: opcodes("Psomewhere~."),
    "attributes of a class": lambda ran: opcodes("ccollections~OrderedDict~(N(S'__reduce__'~cos~system~dtb."),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPLOITS)
def test_a_hostile_pickle_runs_nothing(files: Path, name: str) -> None:
    ran = files / RAN
    path = files / "hostile.pickle"
    path.write_bytes(EXPLOITS[name](ran))
    with pytest.raises(RefusedPickle, match="refused"):
        read_benchmark(path)
    assert not ran.exists()


def test_the_exploits_would_run_if_pickle_itself_read_them(files: Path) -> None:
    """Otherwise the tests above would show nothing."""
    for name in ("os.system", "eval", "open", "partial", "numpy.memmap", "INST"):
        ran = files / RAN
        loaded = pickle.loads(EXPLOITS[name](ran))
        if name == "partial":
            loaded()
        if name == "open":
            loaded.close()
        assert ran.exists(), name
        ran.unlink()


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None, True, "text", b"bytes", (1, 2), {3, 4}, frozenset({5})]},
        collections.OrderedDict(a=1),
        np.float32(1.5), np.int64(7), np.arange(6.0).reshape(2, 3), np.array(["a", "b"]),
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("protocol", range(2, 6))
def test_plain_data_is_read_in_every_protocol_of_python_3(value: Any, protocol: int) -> None:
    found = restricted_load(io.BytesIO(pickle.dumps(value, protocol)), "x")
    assert type(found) is type(value)
    np.testing.assert_equal(found, value)


# NAS-Bench-101


def crc32c(data: bytes) -> int:
    """Return the Castagnoli CRC, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15) | (crc << 17 & 0xFFFFFFFF)) + 0xA282EAD8 & 0xFFFFFFFF)


def frame(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def metrics(params: int, *evaluations: tuple[float, float]) -> str:
    """Return a ModelMetrics message in base64, encoded by hand."""
    message = b""
    for validation, test in evaluations:
        fields = ((1, 108.0), (2, 1e3), (3, 1.0), (4, validation), (5, test))
        data = b"".join(bytes([number << 3 | 1]) + struct.pack("<d", value) for number, value in fields)
        data += bytes([6 << 3 | 2, 4]) + b"path"
        message += bytes([1 << 3 | 2]) + varint(len(data)) + data
    message += bytes([2 << 3]) + varint(params) + bytes([3 << 3 | 1]) + struct.pack("<d", 5.0)
    return base64.encodebytes(message).decode()


def cell_record(digest: str, epochs: int, params: int, *evaluations: tuple[float, float]) -> bytes:
    adjacency, ops = "010001000", "input,conv3x3-bn-relu,output"
    return json.dumps([digest, epochs, adjacency, ops, metrics(params, *evaluations)]).encode()


def cells() -> list[bytes]:
    return [
        cell_record("aa", 108, 1_000_000, (0.1, 0.1), (0.5, 0.5), (0.9, 0.8)),
        cell_record("aa", 4, 1_000_000, (0.1, 0.1), (0.3, 0.25)),
        cell_record("bb", 108, 70, (0.5, 0.4)),
        cell_record("aa", 108, 1_000_000, (0.1, 0.1), (0.7, 0.6)),
    ]


def test_a_tfrecord_is_read(files: Path) -> None:
    path = files / "nasbench_full.tfrecord"
    path.write_bytes(b"".join(map(frame, cells())))
    first, second = read_benchmark(path)
    assert list(first) == ["hash", "adjacency", "ops", "params", "val_accuracy_4", "test_accuracy_4",
                           "val_accuracy_108", "test_accuracy_108"]  # fmt: skip
    assert (first["hash"], first["params"], second["params"]) == ("aa", "1000000", "70")
    assert float(first["val_accuracy_108"]) == pytest.approx(0.8)
    assert float(first["test_accuracy_108"]) == pytest.approx(0.7)
    assert (first["val_accuracy_4"], first["test_accuracy_4"]) == ("0.3", "0.25")
    assert (second["val_accuracy_4"], second["val_accuracy_108"]) == ("", "0.5")
    assert spaces.get("nasbench101").from_row(first).startswith('{"matrix":[[0,1,0],[0,0,1],[0,0,0]]')


def test_rows_of_a_tfrecord_are_those_of_the_shared_table(files: Path) -> None:
    table = SHARED / "nasbench101_subset.csv.gz"
    if not table.exists():
        pytest.skip(f"the benchmark's cells are in {table}, which is not here")
    with gzip.open(table, "rt") as file:
        wanted = list(itertools.islice(csv.DictReader(file), 20))
    path = files / "a.tfrecord"
    with path.open("wb") as out:
        for row in wanted:
            encoded = metrics(int(row["params"]), (float(row["val_accuracy_108"]), 0.5))
            out.write(frame(json.dumps([row["hash"], 108, row["adjacency"], row["ops"], encoded]).encode()))
    assert [{key: found[key] for key in row} for found, row in zip(read_benchmark(path), wanted, strict=True)] == wanted


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-3], ["record 4 at byte", "cut off"]),
        (lambda data: data[:5], ["record 1 at byte 0", "cut off"]),
        (lambda data: data[:40] + b"#" + data[41:], ["record 1 at byte 0", "checksum of its data"]),
        (lambda data: b"\x01" + data[1:], ["record 1 at byte 0", "wrong checksum"]),
        (lambda data: frame(b"[]"), ["record 1", "none of NAS-Bench-101"]),
        (lambda data: frame(json.dumps(["a", 4, "0", "x", "####"]).encode()), ["record 1"]),
        (lambda data: frame(json.dumps(["a", 4, "0", "x", metrics(1)]).encode()), ["record 1"]),
        (lambda data: frame(json.dumps(["a", 4, "0", "x", base64.b64encode(b"\xff\xff").decode()]).encode()),
         ["record 1", "damaged metrics"]),
        (lambda data: b"", ["no records"]),
    ],
)  # fmt: skip
def test_a_damaged_tfrecord_is_refused_with_its_place(
    files: Path, damage: Callable[[bytes], bytes], words: list[str]
) -> None:
    path = files / "bad.tfrecord"
    path.write_bytes(damage(b"".join(map(frame, cells()))))
    with pytest.raises(ValueError, match=r"bad\.tfrecord") as caught:
        read_benchmark(path)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_record_that_claims_gigabytes_is_not_believed(files: Path) -> None:
    length = struct.pack("<Q", 2**40)
    (files / "a.tfrecord").write_bytes(length + masked(length) + b"x")
    with pytest.raises(ValueError, match="1,099,511,627,776 bytes long"):
        read_benchmark(files / "a.tfrecord")


# NAS-Bench-NLP


RECIPE = {
    "node_0": {"op": "linear", "input": ["x", "h_prev_0"]},
    "h_new_0": {"op": "activation_tanh", "input": ["node_0"]},
}
LOGS: dict[str, Any] = {
    "log_stats_model_0_2020.json": {"recepie": json.dumps(RECIPE), "recepie_id": 0, "num_params": 5731600,
                                    "train_losses": [6.0], "val_losses": [6.0, 5.5], "test_losses": [6.1, 5.25],
                                    "status": "OK"},
    "log_stats_model_1_2020.json": {"recepie": RECIPE, "num_params": 7, "val_losses": [], "test_losses": [],
                                    "status": "Exception: math range error"},
    "log_stats_model_2_2020.json": {"recepie": json.dumps(RECIPE), "num_params": 7, "val_losses": [5.0, float("nan")],
                                    "test_losses": [5.0, float("nan")], "status": "loss is nan!"},
}  # fmt: skip


def texts() -> dict[str, bytes]:
    return {**{name: json.dumps(log).encode() for name, log in LOGS.items()}, "log_stats_model_3.json": b'{"recepie": '}


def as_folder(root: Path) -> Path:
    folder = root / "train_logs_single_run"
    folder.mkdir()
    for name, text in texts().items():
        (folder / name).write_bytes(text)
    (folder / "dump_weights_model_0.pt").write_bytes(b"")
    return folder


def as_zip(root: Path) -> Path:
    with zipfile.ZipFile(root / "logs.zip", "w") as archive:
        for name, text in texts().items():
            archive.writestr(f"logs/{name}", text)
    return root / "logs.zip"


def as_tar(root: Path) -> Path:
    with tarfile.open(root / "logs.tar.gz", "w:gz") as archive:
        for name, text in texts().items():
            member = tarfile.TarInfo(f"logs/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return root / "logs.tar.gz"


@pytest.mark.parametrize("write", [as_folder, as_zip, as_tar])
def test_logs_are_read_and_a_broken_one_costs_itself_alone(files: Path, write: Callable[[Path], Path]) -> None:
    rows = read_benchmark(write(files))
    assert [row["log_name"] for row in rows] == sorted(texts())
    assert [row["test_loss"] for row in rows] == ["5.25", "", "", ""]
    assert [row["val_loss"] for row in rows] == ["5.5", "", "", ""]
    assert [row["status"].split(":")[0] for row in rows] == ["OK", "Exception", "loss is nan!", "broken log"]
    space = spaces.get("nasbenchnlp")
    assert [space.from_row(row) for row in rows[:3]] == [space.parse(json.dumps(RECIPE))] * 3


def test_archives_without_logs_are_refused(files: Path) -> None:
    (files / "empty").mkdir()
    (files / "bad.zip").write_bytes(b"PK")
    (files / "bad.tar.gz").write_bytes(gzip.compress(b"x"))
    with zipfile.ZipFile(files / "other.zip", "w") as archive:
        archive.writestr("a.json", "[1]")
    for name in ("empty", "bad.zip", "bad.tar.gz", "other.zip"):
        with pytest.raises(ValueError, match=name):
            read_benchmark(files / name)


# All of them


def test_files_are_known_by_their_endings(files: Path) -> None:
    assert is_benchmark_file(files)
    for name in ("a.tfrecord", "a.pth", "a.pickle.pbz2", "a.pkl", "a.tar.gz", "a.zip"):
        assert is_benchmark_file(files / name)
        with pytest.raises(ValueError, match="no such file"):
            read_benchmark(files / name)
    for name in ("a.csv", "a.csv.gz", "a.txt", "a.jsonl"):
        assert not is_benchmark_file(files / name)


def test_evaluate_takes_a_benchmarks_own_file(files: Path) -> None:
    path = files / "NATS-tss.pickle.pbz2"
    path.write_bytes(bz2.compress(pickle.dumps(benchmark())))
    args = ("--space", "nasbench201", "--column", "cifar10_test", "--batch", "4", "--format", "json", "--top", "1")
    done = command("evaluate", str(path), *args)
    assert done.code == 0, done.err
    assert json.loads(done.out)["total"] == 2
    (files / "bad.pickle").write_bytes(b"")
    done = command("evaluate", str(files / "bad.pickle"), *args)
    assert (done.code, done.err.count("\n")) == (2, 1)
