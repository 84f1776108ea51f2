"""What `benchmarks/kill.py` kills: a run, or a search; how far each is, and what it must end with."""
