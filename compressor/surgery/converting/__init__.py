"""Replaces recurrent layers by other recurrences that are fitted to what they gave."""
