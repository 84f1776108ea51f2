"""The version of this package; that of `pyproject.toml` is compared with it by a test."""

VERSION = "0.1.0"
