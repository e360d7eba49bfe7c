"""The Python client: `Driftline` for ordinary code, `AsyncDriftline` for code that awaits.

With the messages that an application writes and reads, so that it imports from here alone.
"""

from profiles.answers import Filters, Recommendation
from profiles.errors import DriftlineError
from profiles.events import Event
from profiles.items import Item, User
from stream.client.asynchronous import AsyncDriftline
from stream.client.blocking import Driftline

__all__ = [
    "AsyncDriftline",
    "Driftline",
    "DriftlineError",
    "Event",
    "Filters",
    "Item",
    "Recommendation",
    "User",
]
