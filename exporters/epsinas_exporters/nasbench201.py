"""The short name of `epsinas_exporters.spaces.nasbench201`."""

from epsinas_exporters.spaces.base import ArchitectureError
from epsinas_exporters.spaces.nasbench201 import (
    EDGES,
    OPERATIONS,
    Cell,
    architectures,
    build,
    file_name,
    parse,
    sample,
)

__all__ = [
    "EDGES",
    "OPERATIONS",
    "ArchitectureError",
    "Cell",
    "architectures",
    "build",
    "file_name",
    "parse",
    "sample",
]
