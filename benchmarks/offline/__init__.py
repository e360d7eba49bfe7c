"""Offline comparison of recommenders: data, protocols, ranking and figures, one code for all."""
