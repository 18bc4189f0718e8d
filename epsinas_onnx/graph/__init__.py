"""From a file to a graph whose weights are one constant: load, precision, shapes, roles, rewrite; one pass a file."""
