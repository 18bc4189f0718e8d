"""Rules of single operators that no family covers, by what they do to entries."""
