"""Changes a graph in place, one pass a file."""
