"""The parts of bench_swap: watching a swap, checking what it left, and how good it was at once."""
