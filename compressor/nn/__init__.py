"""Tensor functions and layers; no knowledge of recipes."""
