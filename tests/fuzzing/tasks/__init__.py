"""Random tasks with a known verdict: a grammar of good ones, and of what is wrong with them."""
