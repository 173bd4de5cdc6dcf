"""Benchmarks against what people use instead, on real SSH servers: `python -m benchmarks`."""
