"""Other people's runtimes: each in a process of its own and, if pins clash, in an environment of its own."""
