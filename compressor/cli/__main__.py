"""`python -m compressor.cli`: the command line from a checkout that is not installed."""

from compressor.cli import main

main()
