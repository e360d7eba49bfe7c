"""The sweep and the next fetch wait while a round is under way, and not for ever."""

from __future__ import annotations

import asyncio

import pytest

from stream import pace
from stream.pace import HARDLY_S, QUEUED_S, Pace

pytestmark = pytest.mark.unit


async def test_without_events_the_sweep_waits_for_nobody() -> None:
    await asyncio.wait_for(Pace().leisure(), 0.01)


async def test_while_events_wait_the_sweep_does_and_goes_on_when_they_no_longer_do() -> None:
    events = Pace()
    events.note_round(2 * HARDLY_S)
    sweep = asyncio.create_task(events.leisure())
    for _ in range(3):
        await asyncio.sleep(0)
        events.note_round(2 * HARDLY_S)
        await asyncio.sleep(0)
        assert not sweep.done()
    events.note_round(HARDLY_S / 2)
    await asyncio.wait_for(sweep, pace.NO_ROUND_S / 2)


async def test_what_waited_in_a_last_round_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "NO_ROUND_S", 0.01)
    monkeypatch.setattr(pace, "AT_MOST_S", 60.0)
    events = Pace()
    events.note_round(2 * HARDLY_S)
    await asyncio.wait_for(events.leisure(), 5.0)
    monkeypatch.setattr(pace, "NO_ROUND_S", 60.0)
    await asyncio.wait_for(events.leisure(), 5.0)


async def test_a_worker_that_no_event_reaches_any_more_sweeps_freely() -> None:
    events = Pace()
    events.note_round(2 * HARDLY_S)
    await asyncio.wait_for(events.leisure(), 5.0)
    await asyncio.wait_for(events.leisure(), 0.01)


async def test_a_worker_that_is_always_behind_sweeps_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pace, "AT_MOST_S", 0.02)
    events = Pace()
    events.note_round(2 * HARDLY_S)
    sweep = asyncio.create_task(events.leisure())
    while not sweep.done():
        events.note_round(2 * HARDLY_S)
        await asyncio.sleep(0.001)


async def test_without_a_round_under_way_fetches_follow_at_once() -> None:
    events = Pace()
    await asyncio.wait_for(events.fetch_again(), 0.01)
    events.note_round(2 * QUEUED_S)
    events.note_rest()
    await asyncio.wait_for(events.fetch_again(), 0.01)


async def test_while_events_do_not_queue_fetches_follow_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pace, "FETCH_AGAIN_S", 60.0)
    events = Pace()
    events.note_round(QUEUED_S / 2)
    await asyncio.wait_for(events.fetch_again(), 5.0)


async def test_while_a_round_is_under_way_the_next_fetch_waits_for_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pace, "FETCH_AGAIN_S", 60.0)
    events = Pace()
    events.note_round(2 * QUEUED_S)
    fetch = asyncio.create_task(events.fetch_again())
    for _ in range(3):
        await asyncio.sleep(0)
        assert not fetch.done()
    events.note_rest()
    await asyncio.wait_for(fetch, 5.0)


async def test_a_long_round_does_not_keep_the_next_fetch_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pace, "FETCH_AGAIN_S", 0.001)
    events = Pace()
    events.note_round(2 * QUEUED_S)
    await asyncio.wait_for(events.fetch_again(), 5.0)
