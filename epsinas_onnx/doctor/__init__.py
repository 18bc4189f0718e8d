"""Examines the machine and the installation: what runs, on what, how fast, and what is in the way."""

from epsinas_onnx.doctor.examination import Examination, Finding, examine

__all__ = ["Examination", "Finding", "examine"]
