"""Keeps results in a file that runs share: what was scored is found again, and a run that was killed goes on."""
