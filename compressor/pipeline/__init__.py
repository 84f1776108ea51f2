"""One run: compress, export, measure, report."""
