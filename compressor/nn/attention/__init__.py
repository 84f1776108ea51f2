"""Attention layers: compact, low-rank, pooled, and recurrent (Aaren)."""
