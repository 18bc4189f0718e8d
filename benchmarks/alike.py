"""Times a folder of NAS-Bench-201 files with and without a look for those that compute the same, in turns.

    python benchmarks/alike.py [--networks 300] [--rounds 3] [--batch 256]

Files are written first. Both ways score all of them in this process, one after the other; a ratio is the median time
without over that with. Scores are compared to the last bit. `--different` takes one architecture of each family, of
which no two compute the same: what the look costs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import onnx_ir as ir

from epsinas_exporters import spaces
from epsinas_onnx.scoring.api import score_as_done
from epsinas_onnx.scoring.result import Score


def main() -> None:
    """Print seconds of both ways, their ratio, and how many were run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--different", action="store_true")
    wanted = parser.parse_args()
    space = spaces.get("nasbench201")
    archs = space.sample(space.size or 0, seed=0)
    if wanted.different:
        archs = list({space.family(arch): arch for arch in archs}.values())
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for arch in archs[: wanted.networks]:
            paths.append(str(Path(folder) / space.file_name(arch)))
            ir.save(space.build(arch), paths[-1])
        _timed(paths[:3], wanted.batch, True)  # libraries are loaded
        runs = [(_timed(paths, wanted.batch, False), _timed(paths, wanted.batch, True)) for _ in range(wanted.rounds)]
    without, within = (statistics.median(run[way][0] for run in runs) for way in (0, 1))
    (_, apart), (_, together) = runs[0]
    shared = sum(one.seconds.get("run") == 0 for one in together) - sum(one.seconds.get("run") == 0 for one in apart)
    assert [(one.score, one.order, one.float32_status) for one in apart] == [
        (one.score, one.order, one.float32_status) for one in together
    ]
    print(f"{len(paths)} files, batch {wanted.batch}: {shared} compute the same as another")
    print(f"{without:.2f} s without the look, {within:.2f} s with it; ratio {without / within:.2f}")


def _timed(paths: list[str], batch: int, alike: bool) -> tuple[float, list[Score]]:
    started = time.process_time()
    found = dict(score_as_done(paths, batch=batch, inputs="grey", threads=1, alike=alike))
    return time.process_time() - started, [found[index] for index in range(len(paths))]


if __name__ == "__main__":
    main()
