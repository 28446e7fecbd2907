"""Coordinate-steps a second, here and in the peers: `python -m benchmarks.throughput --help`."""
