"""How well scores rank the architectures of a benchmark: tables, scores, statistics, plots."""
