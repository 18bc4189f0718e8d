"""Tests of `epsinas_exporters.readers`."""
