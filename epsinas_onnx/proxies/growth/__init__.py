"""How fast the values of a graph grow with all weights at once: a graph rewrite in forward mode, without overflow."""
