"""Tests of both packages; helpers are in builders and graph/models."""
