"""`driftline console`: pages on top of the HTTP API, for people who want to look."""
