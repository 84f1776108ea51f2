"""Recurrent layers, and what is common to all of them: the names, the order and the equations of their gates."""
