"""A causal model as a step: one position and the states of all layers in, outputs and new states out."""
