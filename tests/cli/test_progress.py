"""Progress: bars on a terminal, a few lines elsewhere."""

import io
import sys
import time

import pytest

from compressor.cli.progress import Terminal, done_so_far
from compressor.progress import SECONDS_BETWEEN_LINES, progress_line


@pytest.mark.parametrize(
    ("total", "note", "line"),
    [
        (400, "loss 0.31", "training: 100/400 (25 %), 60 s left, loss 0.31"),
        (400, "", "training: 100/400 (25 %), 60 s left"),
        (None, "loss 0.31", "training: 100, loss 0.31"),
        (100, "", "training: 100/100 (100 %), 0 s left"),
    ],
)
def test_a_line_says_what_is_done_and_what_is_left(total, note, line):
    assert progress_line("training", 100, total, 20.0, note) == line


def test_what_is_left_gets_less_while_a_part_takes_its_time_and_is_not_said_once_that_is_wrong():
    assert progress_line("export", 3, 4, 30.0, "", 4.0) == "export: 3/4 (75 %), 6 s left"
    assert progress_line("export", 3, 4, 30.0, "round a", 40.0) == "export: 3/4 (75 %), round a"
    assert progress_line("export", 0, 4, 0.0, "trace", 12.0) == "export: 0/4 (0 %), trace"


def test_short_work_writes_no_line_into_a_log(capsys):
    with Terminal() as progress, progress.bar("training", 1000) as bar:
        for _ in range(1000):
            bar.advance(note="loss 0.31")
    assert capsys.readouterr() == ("", "")


def test_long_work_writes_a_line_now_and_then(capsys, monkeypatch):
    seconds = iter(range(0, 1000, 3))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(seconds)))
    with Terminal() as progress, progress.bar("training", 40) as bar:
        for _ in range(40):
            bar.advance()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: 4/40 (10 %), 108 s left"
    assert len(lines) == 40 * 3 // (SECONDS_BETWEEN_LINES + 2)


def test_what_is_said_goes_to_standard_error(capsys):
    with Terminal() as progress:
        progress.say("step 0: [magnitude]")
    assert capsys.readouterr() == ("", "step 0: [magnitude]\n")


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_a_bar_with_the_remaining_time_and_lines_above_it(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with Terminal() as progress, progress.bar("training [x]", 3) as bar:
        bar.advance(note="loss [0.31]")
        progress.say("round 1 of 2")
    text = screen.getvalue()
    assert "training [x]" in text
    assert "1/3" in text
    assert "left" in text
    assert "loss [0.31]" in text
    assert "round 1 of 2" in text


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ((3, 40, 12.0, 148.2), "3/40, 0:00:12, 0:02:28 left"),
        ((0, 40, None, None), "0/40, 0:00:00, -:--:-- left"),
        ((0, None, 7.9, None), "0:00:07"),
        ((5, None, 7.9, None), "5 done, 0:00:07"),
    ],
)
def test_a_bar_of_unknown_length_promises_no_end(known, said):
    assert done_so_far(*known) == said
