"""Minibatches: the ones made from nothing, and the ones that a user gives."""
