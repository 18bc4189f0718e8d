"""Writes files: as a whole, moved into place, or line by line under a lock."""
