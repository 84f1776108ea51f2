"""A page that a phone opens: it runs a finished run's files there, and sends the timing back into the run's folder."""
