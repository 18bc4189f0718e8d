"""Tests of the evaluator of lowered graphs."""
