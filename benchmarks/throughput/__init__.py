"""The parts of `bench_throughput`: our worker, the peers beside it, and the floor under both."""
