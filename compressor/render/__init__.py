"""Views of a report: `terminal`, `markdown` and `html` each draw the blocks of every section in `sections`."""
