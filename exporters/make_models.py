"""Writes the files of models/ anew: `python exporters/make_models.py [FOLDER]`."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx_ir as ir

from epsinas_exporters import classics
from epsinas_exporters.spaces import nasbench201

CLASSICS = {
    "resnet50": lambda: classics.resnet50(classes=1, size=64),
    "mobilenet_v2": lambda: classics.mobilenet_v2(classes=1, size=64),
    "mlp": lambda: classics.mlp(),
    "lstm": lambda: classics.lstm(),
    "stereo": lambda: classics.stereo(),
    "transformer": lambda: classics.transformer(),
}

# One of each kind: scored from the best to the worst accuracy, underflowing (no path of identities from input to
# output), and disconnected (every path ends in `none`).
NASBENCH201 = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|",
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|",
    "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|",
    "|avg_pool_3x3~0|+|skip_connect~0|none~1|+|none~0|none~1|skip_connect~2|",
    "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|",
    "|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_1x1~0|nor_conv_3x3~1|none~2|",
    "|nor_conv_1x1~0|+|none~0|nor_conv_1x1~1|+|none~0|none~1|nor_conv_3x3~2|",
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x3~2|",
)


def main(folder: Path) -> None:
    """Write every model into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in CLASSICS.items():
        ir.save(make(), folder / f"{name}.onnx")
    for arch in NASBENCH201:
        ir.save(nasbench201.build(arch), folder / nasbench201.file_name(arch))
    for path in sorted(folder.glob("*.onnx")):
        print(f"{path.stat().st_size:>7,} bytes  {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "models")
