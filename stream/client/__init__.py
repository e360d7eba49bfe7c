"""The Python client: `Driftline` for ordinary code, `AsyncDriftline` for code that awaits."""

from stream.client.asynchronous import AsyncDriftline
from stream.client.blocking import Driftline

__all__ = ["AsyncDriftline", "Driftline"]
