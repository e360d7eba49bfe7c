"""One event in a hundred is poison, one in five comes twice, the order and the clocks are wrong:
the poison is in the dead-letter topic byte for byte, everything else is as if nothing had been.

And the way back: what is put right is sent back by `driftline dlq`, and what is not, dies again.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import pytest

from profiles.items import Item
from profiles.wire import encode
from stream.oracle.run import run_oracle
from tests.deployment import ITEMS, Deployment, wait_until
from tests.faults.poison import DAY_S, MISSING, POISON
from tests.faults.record import Record

pytestmark = pytest.mark.faults

EVENTS = 2_500
"""Of one stream: every kind of poison is in it at least once."""


def _stream(number_of: int, now_s: float) -> tuple[list[tuple[bytes, bytes]], dict[bytes, str]]:
    """Records (key, value) of one stream, and of those that are poison the reason."""
    chance = random.Random(7 + number_of)
    users = EVENTS // 10
    records: list[tuple[bytes, bytes]] = []
    poison: dict[bytes, str] = {}
    kinds = list(POISON)
    for number in range(EVENTS):
        user = f"user-{chance.randrange(users)}"
        clock_s = chance.choice([0.0, 0.0, -DAY_S])
        event = {
            "event_id": f"e-{number_of}-{number}",
            "user_id": user,
            "item_id": f"item-{chance.randrange(ITEMS)}",
            "action": "rate",
            "ts": now_s - 3_600.0 + 0.1 * number / EVENTS + clock_s,
            "value": float(chance.randrange(1, 6)),
        }
        payload = json.dumps(event).encode()
        if number % 100 == 50:
            kind = kinds[number // 100 % len(kinds)]
            reason, make = POISON[kind]
            payload = make(event)
            assert payload not in poison or kind == "no JSON"
            poison[payload] = reason
        records.append((user.encode(), payload))
        if chance.random() < 0.2:
            records.append((user.encode(), payload))
    # Not far: a duplicate that comes after many others of its user counts again, and may.
    for at in range(0, len(records), 50):
        part = records[at : at + 50]
        chance.shuffle(part)
        records[at : at + 50] = part
    return records, poison


def _driftline(deployment: Deployment, *words: str) -> Any:  # Any: JSON
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "stream", *words, "--json"],
        env=deployment.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.timeout(1800)
def test_poison_is_set_aside_byte_for_byte_and_touches_nothing_else(
    deployment: Deployment, repeats: int, record: Record
) -> None:
    events_topic = deployment.topics.events
    worker = deployment.start_worker()
    worker.wait_ready()
    produced, poisonous, poison = 0, Counter[bytes](), dict[bytes, str]()
    for turn in range(repeats):
        records, kinds = _stream(turn, time.time())
        for key, value in records:
            deployment.producer.send(events_topic, key=key, value=value)
        deployment.producer.flush(60)
        produced += len(records)
        deployment.wait_committed(produced)
        poison |= kinds
        poisonous.update(value for _, value in records if value in kinds)
        dead = deployment.read(deployment.topics.dlq(events_topic))
        assert Counter(letter.value for letter in dead) == poisonous
    for letter in dead:
        assert _reason(letter) == poison[letter.value]
    report = run_oracle(deployment.settings)
    assert report.faults() == []
    assert report.events_produced == produced
    assert report.dead_lettered == len(dead)
    assert report.events_repeated > repeats * EVENTS // 10
    assert worker.process.poll() is None

    _send_back(deployment, Counter(_reason(letter) for letter in dead))
    assert run_oracle(deployment.settings).events_lost == 0
    assert worker.stop() == 0
    record.note(
        "1% poison, 20% duplicates, shuffled, clocks off", repeats, report, poison=len(dead)
    )


def _send_back(deployment: Deployment, reasons: Counter[str]) -> None:
    """What an operator does: look, put the cause right, send back, look again."""
    listed = _driftline(deployment, "dlq", "list", "--topic", "events", "--limit", "5")
    assert listed["total"] == reasons.total()
    assert listed["by_reason"] == {deployment.topics.events: dict(reasons)}
    assert len(listed["latest"]) == 5
    assert all(len(letter["payload"]) <= 500 for letter in listed["latest"])

    late = Item(MISSING, "tale of the latecomer", tags=["tale"])
    deployment.send(deployment.topics.items, MISSING, encode(late))
    before = sum(deployment.applied().values())
    words = ("dlq", "replay", "--topic", "events", "--reason", "unknown-item")
    replayed = _driftline(deployment, *words)
    assert replayed["by_reason"] == {"unknown-item": reasons["unknown-item"]}
    fresh = len({e.value for e in _letters(deployment, "unknown-item")})
    wait_until("applied", lambda: sum(deployment.applied().values()) >= before + fresh)

    # What is still wrong becomes a new letter, with the same bytes and one set of headers.
    words = ("dlq", "replay", "--topic", "events", "--reason", "unknown-action")
    assert _driftline(deployment, *words)["total"] == reasons["unknown-action"]
    twice = 2 * reasons["unknown-action"]
    wait_until("dead again", lambda: len(_letters(deployment, "unknown-action")) == twice)
    letters = _letters(deployment, "unknown-action")
    assert all(count % 2 == 0 for count in Counter(letter.value for letter in letters).values())
    for letter in letters:
        names = [name for name, _ in letter.headers]
        assert len(names) == len(set(names))


def _letters(deployment: Deployment, reason: str) -> list[Any]:  # Any: kafka-python's records
    dead = deployment.read(deployment.topics.dlq(deployment.topics.events))
    return [letter for letter in dead if _reason(letter) == reason]


def _reason(letter: Any) -> str:
    return str(dict(letter.headers)["__connect.errors.exception.class.name"], "utf-8")
