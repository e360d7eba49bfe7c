"""Attacks on what is learned: a world to train on, and how an attacker looks at a release."""
