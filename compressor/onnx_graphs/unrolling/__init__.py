"""Recurrent nodes and loops of known length as plain operations, position by position."""
