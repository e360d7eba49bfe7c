"""One language model for several domains of a machine: `driftline encoder` and its clients."""
