"""Reads a graph and changes nothing: roles, shapes, layers, and what exporters left behind."""
