"""Measuring models and exported files: every number with its unit and its conditions."""
