"""Lumping: lowers a graph whose weights are one constant to one in which equal channels are computed once."""
