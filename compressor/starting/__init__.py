"""The first task: written for a model of the user's, so that it runs unchanged."""
