"""The parts of `make bench-scale`: each measures how one cost grows, and returns plain results."""
