"""Layers that replace recurrent ones: other recurrences, which accelerators run, or that need no loop over time."""
