"""Takes units out of a model for real and keeps every consumer consistent."""
