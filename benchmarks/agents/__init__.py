"""Many agents in the time of their random words: `python -m benchmarks.agents --help`."""
