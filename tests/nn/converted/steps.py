"""A layer of a conversion that is called on a few positions at a time."""

import torch


def in_steps(own, x, chunk):
    """The outputs (B, T, O) of a layer that takes `chunk` positions of x (B, T, I) after the other, from its states."""
    states, outputs = [value.expand(len(x), *value.shape[1:]) for _, value in own.initial_states()], []
    for part in x.split(chunk, 1):
        y, states = own.step(part, states)
        outputs.append(y)
    return torch.cat(outputs, 1)
