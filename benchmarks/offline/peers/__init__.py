"""Other people's recommenders, behind one interface.  Runs in `.venv-bench-quality`."""
