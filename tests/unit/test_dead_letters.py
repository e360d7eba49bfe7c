"""Which dead letters are meant, and what is shown of them; the broker's part is in tests/faults."""

from __future__ import annotations

import pytest

from profiles.config import Settings
from profiles.errors import TopicError
from stream import dead_letters
from stream.dead_letters import SHOWN_BYTES, Which, list_letters
from stream.letters import PREFIX
from stream.oracle.records import Raw

pytestmark = pytest.mark.unit

NOW_S = 1_700_000_000.0


def letter(offset: int, reason: str, key: bytes = b"ann", age_s: float = 0.0) -> Raw:
    headers = {"exception.class.name": reason, "exception.message": "why", "offset": str(offset)}
    return Raw(
        1,
        offset,
        int((NOW_S - age_s) * 1000),
        key,
        b"\xff" * 5_000,
        tuple((PREFIX + name, text.encode()) for name, text in headers.items()),
    )


LETTERS = [
    letter(0, "malformed", age_s=900.0),
    letter(1, "unknown-item"),
    letter(2, "unknown-item", key=b"bob", age_s=100.0),
]


@pytest.fixture(autouse=True)
def topics(monkeypatch: pytest.MonkeyPatch) -> None:
    """One topic has letters."""
    monkeypatch.setattr(
        dead_letters,
        "read_topic",
        lambda _, topic: iter(LETTERS if topic == "driftline.events.v1.dlq" else []),
    )
    monkeypatch.setattr("time.time", lambda: NOW_S)


@pytest.mark.parametrize(
    ("which", "offsets"),
    [
        (Which(), {0, 1, 2}),
        (Which(reasons=("unknown-item",)), {1, 2}),
        (Which(key=b"bob"), {2}),
        (Which(within_s=200.0), {1, 2}),
        (Which(("events",), ("unknown-item",), b"ann", 10.0), {1}),
        (Which(entities=("items", "users")), set()),
    ],
)
def test_letters_are_chosen_by_topic_reason_key_and_age(which: Which, offsets: set[int]) -> None:
    assert {told.offset for told in list_letters(Settings(), which, 10).latest} == offsets


def test_everything_is_counted_and_only_the_latest_shown_and_shortened() -> None:
    found = list_letters(Settings(), Which(), limit=1)
    assert found.total == 3
    assert found.by_reason == {"driftline.events.v1": {"unknown-item": 2, "malformed": 1}}
    (told,) = found.latest
    assert (told.topic, told.partition, told.offset) == ("driftline.events.v1", 1, 1)
    assert (told.key, told.bytes) == ("ann", 5_000)
    assert len(told.payload) == len("\\xff") * SHOWN_BYTES


def test_a_topic_without_dead_letters_is_named() -> None:
    with pytest.raises(TopicError, match="releases"):
        list_letters(Settings(), Which(entities=("releases",)), 10)
