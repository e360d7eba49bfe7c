"""Driftline from Python, without `await`: the same client, with its loop in a thread of its own.

    with Driftline() as driftline:
        driftline.act("alice", "tent-1", "like")
        print(driftline.recommend("alice", k=3).items)

A facade only: what a call does, and what it raises, stands in `stream.client.asynchronous`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from profiles.answers import Filters, Recommendation
from profiles.config import Settings
from profiles.events import Event
from profiles.items import Item
from profiles.pseudonyms import Pseudonyms
from profiles.wire import Context, Scalar
from stream.client.asynchronous import AsyncDriftline
from stream.client.reading import Subscription

Result = TypeVar("Result")


class Driftline:
    """A client of one deployment.  Use it as a context manager; safe for many threads."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        bootstrap: str | None = None,
        prefix: str | None = None,
        pseudonyms: Pseudonyms | None = None,
    ) -> None:
        self._client = AsyncDriftline(
            settings, bootstrap=bootstrap, prefix=prefix, pseudonyms=pseudonyms
        )

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="driftline-client", daemon=True
        )
        self._thread.start()
        try:
            self._wait(self._client.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._wait(self._client.__aexit__(kind, error, trace))
        finally:
            self._stop()

    def act(
        self,
        user_id: str,
        item_id: str,
        action: str,
        *,
        value: float | None = None,
        ts: float | None = None,
        event_id: str | None = None,
        session_id: str | None = None,
        context: Context | None = None,
        text: str | None = None,
    ) -> Event:
        """Send one event."""
        return self._wait(
            self._client.act(
                user_id,
                item_id,
                action,
                value=value,
                ts=ts,
                event_id=event_id,
                session_id=session_id,
                context=context,
                text=text,
            )
        )

    def say(self, user_id: str, text: str, action: str, *, event_id: str | None = None) -> Event:
        """Send words that are about no item: a search, a question, a comment."""
        return self._wait(self._client.say(user_id, text, action, event_id=event_id))

    def send(self, events: Iterable[Event]) -> int:
        """Send events."""
        return self._wait(self._client.send(events))

    def put_items(self, items: Iterable[Item]) -> int:
        """Add items to the catalogue or replace them."""
        return self._wait(self._client.put_items(items))

    def remove_items(self, item_ids: Iterable[str]) -> None:
        """Take items out of the catalogue."""
        self._wait(self._client.remove_items(item_ids))

    def declare(
        self, user_id: str, interests: str, attributes: Mapping[str, Scalar] | None = None
    ) -> None:
        """Say in words what a user likes."""
        self._wait(self._client.declare(user_id, interests, attributes))

    def recommend(
        self,
        user_id: str,
        k: int = 10,
        *,
        filters: Filters | None = None,
        exclude: Sequence[str] = (),
        context: Context | None = None,
        timeout_s: float = 10.0,
    ) -> Recommendation:
        """Ask for recommendations now and wait for them."""
        return self._wait(
            self._client.recommend(
                user_id, k, filters=filters, exclude=exclude, context=context, timeout_s=timeout_s
            )
        )

    def predict(
        self, user_id: str, items: Sequence[str], *, timeout_s: float = 10.0
    ) -> Recommendation:
        """How likely an act of the user on each of these items would be a positive one."""
        return self._wait(self._client.predict(user_id, items, timeout_s=timeout_s))

    @contextmanager
    def subscribe(
        self, users: Collection[str] | None = None, group: str | None = None
    ) -> Iterator[BlockingSubscription]:
        """Recommendations as they are made."""
        opened = self._client.subscribe(users, group)
        subscription = self._wait(opened.__aenter__())
        try:
            yield BlockingSubscription(self, subscription)
        finally:
            self._wait(opened.__aexit__(None, None, None))

    def erase(self, user_id: str, reason: str = "") -> str:
        """Ask that a user be forgotten."""
        return self._wait(self._client.erase(user_id, reason))

    # Any: what a coroutine sends and is sent has no meaning here.
    def _wait(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C must not leave the call running
            raise

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class BlockingSubscription:
    """An endless iterator of recommendations; `next` is its form with a timeout."""

    def __init__(self, client: Driftline, subscription: Subscription) -> None:
        self._client = client
        self._subscription = subscription

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Recommendation:
        return self._client._wait(self._subscription.__anext__())

    def next(self, timeout_s: float) -> Recommendation | None:
        """The next one, or None if none comes within the time."""
        return self._client._wait(self._subscription.next(timeout_s))
