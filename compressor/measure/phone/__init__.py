"""Latency on a phone that `adb` reaches: the phone, the programs that run files there, and their interleaved timing."""
