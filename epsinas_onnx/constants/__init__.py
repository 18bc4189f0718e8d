"""Chooses the two constants of the metric for a set of networks."""
