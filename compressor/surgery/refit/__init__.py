"""Refits what reads removed units, by least squares on a few batches."""
