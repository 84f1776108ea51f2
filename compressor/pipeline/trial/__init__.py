"""Trials of what a task gives, one file for each of its functions; `dry_run` goes through all of them."""
