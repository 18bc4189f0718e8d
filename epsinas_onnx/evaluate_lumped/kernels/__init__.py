"""What operators compute on plain arrays, in whatever precision these have; one module a family."""
