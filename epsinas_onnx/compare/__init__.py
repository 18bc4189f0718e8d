"""What a model is, and what changed between two."""
