"""Runs chains of small nodes as one compiled program, where numba is installed."""
