"""The learner's settings one at a time: which of them pay."""
