"""Runs a lowered graph in NumPy, one constant at a time: in float32 as it stands, or exactly, without a range."""
