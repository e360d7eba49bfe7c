"""How a replay is paced, held and ended, and what it says when Kafka does not take a message."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
from aiokafka.errors import KafkaTimeoutError

from profiles.errors import BrokerError, SettingsError
from profiles.events import Event
from stream import outbox as outbox_module
from stream.outbox import WINDOW, Outbox
from stream.pacing import Pace
from stream.replay import ReplayOptions, ReplayReport, cloud_event_headers

pytestmark = pytest.mark.unit


class Acknowledged(NamedTuple):
    topic: str
    partition: int
    offset: int


@dataclass
class FakeProducer:
    """Acknowledges at the next turn of the loop; fails or is silent from some message on."""

    breaks_at: int = 10**9
    silent_from: int = 10**9
    keys: list[bytes] = field(default_factory=list)
    unanswered: int = 0
    most_unanswered: int = 0

    async def send(
        self, topic: str, value: bytes, *, key: bytes, headers: list[tuple[str, bytes]] | None
    ) -> asyncio.Future[Acknowledged]:
        number = len(self.keys)
        self.keys.append(key)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Acknowledged] = loop.create_future()
        self.unanswered += 1
        self.most_unanswered = max(self.most_unanswered, self.unanswered)
        if number < self.silent_from:
            loop.call_soon(self._answer, answer, Acknowledged(topic, number % 2, number // 2))
        return answer

    def _answer(self, answer: asyncio.Future[Acknowledged], done: Acknowledged) -> None:
        self.unanswered -= 1
        if done.offset * 2 + done.partition >= self.breaks_at:
            answer.set_exception(KafkaTimeoutError("no answer"))
        else:
            answer.set_result(done)


async def test_all_acknowledgements_are_awaited_and_counted() -> None:
    outbox = Outbox(FakeProducer())
    for number in range(5):
        await outbox.send("t", f"u{number}", b"{}")
    await outbox.drain()
    assert outbox.acked == {"t": 5}
    assert outbox.first_offsets == {("t", 0): 0, ("t", 1): 0}
    assert outbox.last_offsets == {("t", 0): 2, ("t", 1): 1}


async def test_the_window_bounds_what_is_under_way() -> None:
    producer = FakeProducer()
    outbox = Outbox(producer)
    for _ in range(2 * WINDOW):
        await outbox.send("t", "u", b"{}")
    assert producer.most_unanswered <= WINDOW
    await outbox.drain()
    assert outbox.acked["t"] == 2 * WINDOW


async def test_a_failure_tells_what_was_and_was_not_delivered() -> None:
    outbox = Outbox(FakeProducer(breaks_at=3))
    for _ in range(5):
        await outbox.send("t", "u", b"{}")
    with pytest.raises(
        BrokerError, match=r"did not acknowledge 2 messages .*acknowledged are 3 on t"
    ):
        await outbox.drain()


async def test_a_failure_at_a_slow_pace_does_not_wait_for_a_full_window() -> None:
    outbox = Outbox(FakeProducer(breaks_at=0))
    await outbox.send("t", "u", b"{}")
    await asyncio.sleep(0)
    with pytest.raises(BrokerError, match="acknowledged are none"):
        await outbox.send("t", "u", b"{}")


async def test_silence_is_a_failure_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "DELIVERY_TIMEOUT_S", 0.1)
    outbox = Outbox(FakeProducer(silent_from=1))
    for _ in range(3):
        await outbox.send("t", "u", b"{}")
    with pytest.raises(BrokerError, match=r"2 messages in time \(TimeoutError.*are 1 on t"):
        await outbox.drain()


async def seconds_for(pace: Pace, times: list[float]) -> float:
    began = time.monotonic()
    for sent, ts in enumerate(times):
        assert await pace.wait_for(ts, sent)
    return time.monotonic() - began


async def test_a_rate_spreads_events_evenly() -> None:
    pace = Pace(None, 100.0, threading.Event(), None)
    assert 0.2 <= await seconds_for(pace, [0.0] * 21) < 2.0


async def test_a_speedup_compresses_the_time_between_events() -> None:
    pace = Pace(1000.0, None, threading.Event(), None)
    assert 0.2 <= await seconds_for(pace, [5000.0, 5000.0, 5100.0, 5200.0]) < 2.0


async def test_the_gate_holds_the_flow_and_the_pause_is_not_made_up_for() -> None:
    pauses = iter([None, 0.3, None, None])
    pace = Pace(None, 10.0, threading.Event(), lambda sent: next(pauses))
    # Event 1 is held 0.3 s and due 0.1 s after the start: without the shift event 2 would not wait.
    assert 0.5 <= await seconds_for(pace, [0.0] * 3) < 2.0


async def test_a_stop_ends_a_long_wait() -> None:
    stop = threading.Event()
    pace = Pace(None, 0.001, stop, None)
    assert await pace.wait_for(0.0, 0)
    timer = threading.Timer(0.05, stop.set)
    timer.start()
    began = time.monotonic()
    assert not await pace.wait_for(0.0, 1)
    assert time.monotonic() - began < 5.0
    timer.join()


async def test_a_stop_ends_a_closed_gate() -> None:
    stop = threading.Event()

    def closed(sent: int) -> float:
        stop.set()
        return 60.0

    assert not await Pace(None, None, stop, closed).wait_for(0.0, 0)


def test_fractions_and_limit_name_a_slice_of_the_events() -> None:
    assert ReplayOptions().rows(10) == slice(0, 10)
    assert ReplayOptions(start_fraction=0.2, stop_fraction=0.5).rows(10) == slice(2, 5)
    assert ReplayOptions(start_fraction=0.2, stop_fraction=0.5, limit=2).rows(10) == slice(2, 4)
    assert ReplayOptions(limit=99).rows(10) == slice(0, 10)


def test_all_bad_options_are_reported_at_once() -> None:
    with pytest.raises(SettingsError) as wrong:
        ReplayOptions(speedup=0, rate=5, limit=-1, start_fraction=0.9, stop_fraction=0.1)
    for part in ("exclude each other", "speedup is 0", "limit is -1", r"0.9..0.1"):
        assert part in str(wrong.value)


def test_a_report_of_nothing_has_no_rate() -> None:
    assert ReplayReport().events_per_s == 0.0


def test_cloud_events_headers_carry_the_event_s_own_time() -> None:
    headers = dict(cloud_event_headers(Event("e1", "u", "i", "view", 1_700_000_000.5)))
    assert headers["ce_time"] == b"2023-11-14T22:13:20.500000Z"
    assert headers["ce_type"] == b"driftline.event.view.v1"
    assert {"ce_id", "ce_source", "ce_specversion"} <= set(headers)
