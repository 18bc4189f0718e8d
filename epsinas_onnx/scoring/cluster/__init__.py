"""Scores models on a Ray cluster: the process that talks to Ray, and what runs on a node."""
