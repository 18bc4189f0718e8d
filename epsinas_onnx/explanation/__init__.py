"""Where the signal of one model goes: every value for both constants, and the node in which it ends."""
