"""Kinds of models for `benchmarks/model_kinds.py`: small, with random weights."""
