"""From a candidate that passed the gate to a release that serves everybody, and back if it harms.

betting   always-valid test of paired scores          pairing   two releases on the same events
arms      the same for two groups of users, live      stages    the state machine, pure
desk      the edge: evidence in, notices out
"""
