"""Questions, answers and hand-overs, for bench_support."""
