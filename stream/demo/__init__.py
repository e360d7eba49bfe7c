"""`driftline demo`: the whole loop on one machine, watched, and checked by the oracle."""

from stream.demo.run import run_demo

__all__ = ["run_demo"]
