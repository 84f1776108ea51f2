"""Progress that keeps what it is told."""

from __future__ import annotations


class Bar:
    def __init__(self, description, total):
        self.description, self.total, self.done, self.notes = description, total, 0, []

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None

    def advance(self, amount=1, note=""):
        self.done += amount
        self.notes.append(note)


class Recorder:
    def __init__(self):
        self.bars, self.said = [], []

    def bar(self, description, total):
        self.bars.append(Bar(description, total))
        return self.bars[-1]

    def say(self, text):
        self.said.append(text)
