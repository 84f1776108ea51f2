"""Follows units through a model by one traced call."""
