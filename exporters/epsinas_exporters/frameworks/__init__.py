"""Writes the models of training frameworks as graphs without weights; each module needs its framework installed."""
