"""What a cell of NAS-Bench-101 may be: its operations, its sizes, and the matrix that holds its edges."""

from __future__ import annotations

INPUT, OUTPUT = "input", "output"
OPERATIONS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
"""The operations of interior vertices, in the order by which the isomorphism hash numbers them."""
MAX_VERTICES = 7
MAX_EDGES = 9
Matrix = tuple[tuple[int, ...], ...]
