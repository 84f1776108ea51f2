"""Turns a trained recurrent model over symbols into a finite automaton."""
