"""Random input of every kind, good and spoilt, with what the tool must say of it."""
