"""What no feature owns: memory, garbage collection, text, and the log lines of libraries."""
