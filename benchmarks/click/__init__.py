"""Probabilities of a click: features of the baselines, and figures with intervals."""
