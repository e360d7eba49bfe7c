"""Continual learning measured: strategies that learn block by block from the same stream."""
