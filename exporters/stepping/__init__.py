"""The step file of a model that streams."""
