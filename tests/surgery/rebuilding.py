"""A model from what a run keeps of it: the records of its structure, as JSON, and its weights."""

import json

from compressor.surgery.rebuild import rebuild


def rebuilt_from(state, fresh):
    """A fresh model of the task, with the structure of a state and its weights."""
    model = rebuild(fresh, json.loads(json.dumps(state.structure)))
    model.load_state_dict(state.model.state_dict())
    return model
