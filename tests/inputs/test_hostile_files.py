"""Given inputs that are damaged, or say that they hold gigabytes: one sentence each, and little memory."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy

from epsinas_onnx import UsageError
from epsinas_onnx.inputs import given
from epsinas_onnx.inputs.given import image_files, read_given, read_images

from ..builders import command, perceptron, save
from .test_minibatch import spec_of

PEAK = 1_500_000_000


def header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    stream = io.BytesIO()
    npy.write_array_header_1_0(stream, {"shape": shape, "fortran_order": False, "descr": dtype})
    return stream.getvalue()


def npz(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def bomb(path: Path) -> None:
    """Write 12 GB of zeros that take a few kilobytes: the compressed form of one megabyte, over and over."""
    piece = bytes(2**20)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(header((3 * 2**30,))) + packer.flush(zlib.Z_FULL_FLUSH)
    repeated = packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = start + repeated * (12 * 2**10) + packer.flush(zlib.Z_FINISH)
    size = len(header((3 * 2**30,))) + 12 * 2**30
    name = b"x.npy"
    sizes = struct.pack("<HHQQ", 1, 16, size, len(packed))
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 45, 0, 8, 0, 0, 0, 2**32 - 1, 2**32 - 1, len(name), len(sizes))
    entry = struct.pack(
        "<4s6H3I5H2I", b"PK\1\2", 45, 45, 0, 8, 0, 0, 0, 2**32 - 1, 2**32 - 1, len(name), len(sizes), 0, 0, 0, 0, 0
    )
    body = local + name + sizes + packed
    directory = entry + name + sizes
    path.write_bytes(body + directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(directory), len(body), 0))


def cut_npz(path: Path) -> None:
    npz(path, {"x.npy": header((3,)) + bytes(12)})
    path.write_bytes(path.read_bytes()[:-30])


def corrupt_npz(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header((300,)) + bytes(range(240)) * 5)
    data = bytearray(path.read_bytes())
    data[300:340] = bytes(40)
    path.write_bytes(data)


def encrypted_npz(path: Path) -> None:
    npz(path, {"x.npy": header((3,)) + bytes(12)})
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)


def pickled(path: Path) -> None:
    np.savez(path, x=np.asarray([{"a": 1}, None], dtype=object))


HOSTILE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a bomb": ("b.npz", bomb, "12 GiB of arrays"),
    "a huge header in a .npz": ("h.npz", lambda p: npz(p, {"x.npy": header((2**40,)) + b"1234"}), "should hold 4 TiB"),
    "a header that is a little too large": (
        "h.npz", lambda p: npz(p, {"x.npy": header((4,)) + bytes(12)}), "'x' should hold 16 bytes, and 12 bytes are"
    ),
    "a huge header": ("h.npy", lambda p: p.write_bytes(header((2**40,)) + b"1234"), "4 TiB of arrays"),
    "a large header": ("h.npy", lambda p: p.write_bytes(header((2**30,)) + b"1234"), "no .npy or .npz file"),
    "a negative size": ("h.npy", lambda p: p.write_bytes(header((-3,)) + bytes(12)), "no .npy or .npz file"),
    "a cut .npy": ("h.npy", lambda p: p.write_bytes(header((3,)) + bytes(8)), "no .npy or .npz file"),
    "a cut .npz": ("c.npz", cut_npz, "no .npy or .npz file"),
    "a corrupt .npz": ("c.npz", corrupt_npz, "no .npy or .npz file"),
    "an encrypted .npz": ("e.npz", encrypted_npz, "no .npy or .npz file"),
    "pickled objects": ("p.npz", pickled, "Python objects"),
    "named fields": ("p.npy", lambda p: np.save(p, np.zeros(3, [("a", "f4")])), "Python objects"),
    "texts": ("t.npy", lambda p: np.save(p, np.asarray(["a", "b"])), "only numbers"),
    "dates": ("t.npy", lambda p: np.save(p, np.zeros(3, "datetime64[s]")), "only numbers"),
    "complex numbers": ("t.npy", lambda p: np.save(p, np.zeros((3, 3), complex)), "only numbers"),
    "no arrays in a .npz": ("t.npz", lambda p: npz(p, {"readme.txt": b"hello"}), "'readme.txt', which is no array"),
    "an empty .npz": ("t.npz", lambda p: npz(p, {}), "holds no arrays"),
    "a pipe": ("t.npy", os.mkfifo, "neither a file nor a folder"),
    "a pipe that is called .npz": ("t.npz", os.mkfifo, "neither a file nor a folder"),
}  # fmt: skip

PRINT_PEAK = """
import sys
from pathlib import Path
from epsinas_onnx import UsageError
from epsinas_onnx.inputs.given import read_given
for path in sys.argv[1:]:
    try:
        read_given(path)
    except UsageError:
        continue
    raise SystemExit(f"{path} was read")
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_input_file_is_one_sentence_about_the_call(tmp_path: Path, name: str) -> None:
    file, write, words = HOSTILE[name]
    write(tmp_path / file)
    with pytest.raises(UsageError, match=words):
        read_given(tmp_path / file)
    model = save(perceptron(), tmp_path / "m.onnx")
    done = command("score", model, "--input", str(tmp_path / file))
    assert done.code == UsageError.exit_code
    assert "Traceback" not in done.err
    assert "unexpected" not in done.err


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_hostile_input_files_take_little_memory(tmp_path: Path) -> None:
    paths = []
    for index, (file, write, _) in enumerate(HOSTILE.values()):
        path = tmp_path / str(index) / file
        path.parent.mkdir()
        write(path)
        paths.append(str(path))
    done = subprocess.run([sys.executable, "-c", PRINT_PEAK, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < PEAK


def test_what_numpy_writes_is_read_as_it_was(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    arrays = {
        "plain": rng.random((4, 3), np.float32), "turned": np.asfortranarray(rng.random((4, 3))),
        "swapped": rng.random(5).astype(">f4"), "scalar": np.asarray(7), "none": np.zeros((0, 3), np.float32),
        "long": np.arange(9)[::2], "a/b": np.ones(2, bool),
    }  # fmt: skip
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "all.npz", **arrays)  # type: ignore[operator]
        found = read_given(tmp_path / "all.npz")
        assert isinstance(found, dict)
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array, strict=True)
    for array in arrays.values():
        np.save(tmp_path / "one.npy", array)
        found = read_given(tmp_path / "one.npy")
        assert isinstance(found, dict)
        np.testing.assert_array_equal(found[""], array, strict=True)
        found[""].flags.writeable = True  # it is a copy, not a view of the file


def png(width: int, height: int) -> bytes:
    """Return a PNG that says how large it is and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("data", "words"),
    [(png(60_000, 60_000), "pixels"), (png(11_000, 13_000), "11000 x 13000 pixels"), (png(4, 4), "cannot be read"),
     (png(4, 4)[:40], "cannot be read"), (b"", "cannot be read"), (b"GIF89a\xff\xff", "cannot be read")],
)  # fmt: skip
def test_a_hostile_image_is_one_sentence(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(UsageError, match=words) as caught:
        read_images(tmp_path, spec_of((1, 3, 4, 5)), 2, "m")
    assert str(tmp_path / "a.png") in str(caught.value)


def test_of_many_images_no_more_are_kept_than_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive, most = 0, 0

    class Counted(type(tmp_path)):  # type: ignore[misc]
        def __init__(self, *args: str) -> None:
            if sys.version_info >= (3, 12):  # before, a path is made by what makes the object
                super().__init__(*args)
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    for index in range(2000):
        (tmp_path / f"{index % 20}").mkdir(exist_ok=True)
        (tmp_path / f"{index % 20}" / f"{index:05}.png").touch()
    expected = sorted(tmp_path.rglob("*.png"))[:7]
    monkeypatch.setattr(given, "Path", Counted)
    assert [str(path) for path in image_files(tmp_path, 7)] == [str(path) for path in expected]
    assert most < 100


def test_a_pipe_among_images_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UsageError, match="no images"):
        image_files(tmp_path, 2)
