"""Finds the best networks of a space without training them."""
