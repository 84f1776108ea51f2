"""Chooses and removes hidden units, channels and features."""
