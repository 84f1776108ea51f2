"""Small faults put into numeric code, one at a time, to see whether a test notices: see `benchmarks/mutate.py`."""
