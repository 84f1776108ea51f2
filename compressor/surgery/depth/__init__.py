"""Stacks of layers: which layers of a model may stand for each other, share weights, be left out or repeated."""
