"""Why a model with loops cannot be written for any length."""

from __future__ import annotations


class NotRolledError(Exception):
    """Why a model cannot be rolled up, and what to do about it if that is known."""

    def __init__(self, reason: str, hint: str | None = None) -> None:
        """Keep both."""
        super().__init__(reason)
        self.reason, self.hint = reason, hint
