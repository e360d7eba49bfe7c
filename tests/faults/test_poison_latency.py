"""Two workers side by side under the same load; one of them, in turns, gets 1% poison besides.

What poison costs the others shows in the ratio of the two 95th percentiles of event to
recommendation.  The workers change roles every few seconds, so that neither what is peculiar to
one of them nor what else the machine does at the time falls on one side only.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiles.answers import Recommendation
from profiles.wire import decode_json
from stream.broker import EmbeddedKafka
from stream.oracle.records import read_topic
from stream.oracle.run import run_oracle
from tests.deployment import ITEMS, Deployment, create_readable_topics, deploy
from tests.faults.poison import POISON
from tests.faults.record import Bar, Record

pytestmark = pytest.mark.faults

ROUNDS, SHORT_ROUNDS = 20, 2
ROUND_EVENTS, SHORT_EVENTS = 1_000, 300
EVERY_S = 0.005
USERS = 200
SIDES = 2
Sent = dict[str, tuple[int, bool]]
"""By event id: the turn it was sent in, and whether its worker got poison then."""


@contextlib.contextmanager
def two_workers(
    kafka: EmbeddedKafka, language_model: Path, root: Path
) -> Iterator[list[Deployment]]:
    """Two deployments on one broker, each with one ready worker."""
    with contextlib.ExitStack() as stack:
        made = []
        for side in range(SIDES):
            prefix = f"test-{uuid.uuid4().hex[:12]}"
            (place := root / f"side-{side}").mkdir()
            create_readable_topics(kafka.bootstrap, prefix)
            made.append(stack.enter_context(deploy(kafka.bootstrap, prefix, language_model, place)))
        for worker in [deployment.start_quick_worker() for deployment in made]:
            worker.wait_ready()
        yield made


def event(number: int, now_s: float) -> dict[str, Any]:
    """A good one, the same for both sides."""
    return {
        "event_id": f"e-{number}",
        "user_id": f"user-{number * 7 % USERS}",
        "item_id": f"item-{number * 3 % ITEMS}",
        "action": "rate",
        "ts": now_s,
        "value": float(number % 5 + 1),
    }


def send(made: list[Deployment], rounds: int, events: int) -> Sent:
    """The same good events to both at an even pace, and 1% of poison to the one whose turn it is.

    Returns: what was sent to the first of the two; the other had its poison in the other turns.
    """
    pace, kinds, sent = threading.Event(), list(POISON.values()), Sent()
    for number in range(rounds * events):
        turn = number // events
        good = event(number, time.time())
        sent[str(good["event_id"])] = (turn, turn % SIDES == 0)
        key = str(good["user_id"]).encode()
        for deployment in made:
            topic = deployment.topics.events
            deployment.producer.send(topic, key=key, value=json.dumps(good).encode())
        if number % 100 == 50:
            bad = {**good, "event_id": f"bad-{number}"}
            _, spoil = kinds[number // 100 % len(kinds)]
            deployment = made[turn % SIDES]
            deployment.producer.send(deployment.topics.events, key=key, value=spoil(bad))
        pace.wait(EVERY_S)
    for deployment in made:
        deployment.producer.flush(30)
    return sent


def latencies_s(deployment: Deployment) -> dict[str, float]:
    """Seconds from an event's record to its first recommendation's, by event id."""
    broker, topics = deployment.settings.broker, deployment.topics
    begun = {(raw.partition, raw.offset): raw for raw in read_topic(broker, topics.events)}
    found: dict[str, float] = {}
    for raw in read_topic(broker, topics.recommendations):
        output = decode_json(raw.value or b"", Recommendation)
        cause = begun[output.cause_partition, output.cause_offset]
        found.setdefault(output.cause_id, (raw.timestamp_ms - cause.timestamp_ms) / 1000.0)
    return found


@pytest.mark.timeout(1800)
def test_poison_does_not_make_others_wait(
    kafka: EmbeddedKafka,
    tiny_language_model: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    record: Record,
) -> None:
    is_long = request.config.getoption("--long")
    rounds, events = (ROUNDS, ROUND_EVENTS) if is_long else (SHORT_ROUNDS, SHORT_EVENTS)
    with two_workers(kafka, tiny_language_model, tmp_path) as made:
        sent = send(made, rounds, events)
        taken: dict[bool, list[float]] = {True: [], False: []}
        for side, deployment in enumerate(made):
            total = sum(1 for _ in read_topic(deployment.settings.broker, deployment.topics.events))
            deployment.wait_committed(total)
            for event_id, seconds in latencies_s(deployment).items():
                _, first_has_poison = sent[event_id]
                taken[first_has_poison == (side == 0)].append(seconds)
        reports = [run_oracle(deployment.settings) for deployment in made]
    for report in reports:
        assert report.faults() == []
        assert report.dead_lettered == rounds * events // 100 // SIDES
    with_poison, without = (float(np.quantile(taken[key], 0.95)) for key in (True, False))
    record.note(
        "1% poison: p95 of the others",
        rounds,
        reports[0],
        {"p95 with poison / without": Bar(1.10, [with_poison / without])},
        p95_with_poison_s=with_poison,
        p95_without_s=without,
        outputs=len(taken[True]) + len(taken[False]),
    )
