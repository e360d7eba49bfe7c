"""Measurements: each `bench_*.py` is one command (`make bench-NAME`); README.md explains them."""
