"""The plots of a report, one a module."""
