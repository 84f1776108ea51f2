"""The three views as text, and small changes of a report."""

import io

from rich.console import Console

from compressor.render import html, markdown, terminal
from compressor.render.sections.summary import statements


def printed(parts, width=140):
    """What rich prints of these parts, without colours."""
    stream = io.StringIO()
    Console(file=stream, width=width).print(*parts, sep="\n")
    return stream.getvalue()


def on_terminal(report, width=140):
    return printed(terminal.page(report), width)


DOCUMENTS = [markdown.page, html.page]
VIEWS = [*DOCUMENTS, on_terminal]


def changed(report, **compressed):
    """The report with other facts of its compressed file."""
    return report.model_copy(update={"compressed": (report.compressed[0].model_copy(update=compressed),)})


def with_step(report, **facts):
    """The report with other facts of its first step."""
    return report.model_copy(update={"steps": (report.steps[0].model_copy(update=facts), *report.steps[1:])})


def said(report):
    """The sentences of the summary as one text."""
    return " ".join(statement.text for statement in statements(report))
