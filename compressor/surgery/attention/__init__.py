"""Finds attention in a model, takes its heads out, and replaces it by other forms."""
