"""What the user supplies, a guard around it, and views of it."""

from compressor.task.loading import load

__all__ = ["load"]
