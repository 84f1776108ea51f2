"""Replaces matrices by products of thin ones."""
