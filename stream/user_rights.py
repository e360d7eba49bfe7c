"""What one user may ask for: everything held about her, and that it be forgotten.

Both work on the topics alone, from any machine that reaches Kafka.  A user's records lie in one
partition, by the murmur2 of her key; dead letters are searched whole, since what is wrong with one
may be its key.  The replay buffer holds the same events under a pseudonym, on the learner's disk:
it is not read here, and an erasure reaches it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Iterator
from typing import Any

import msgspec
from kafka.partitioner.default import murmur2

from profiles.config import Settings
from profiles.erasures import Erasure, Receipt
from profiles.errors import BadMessage, BrokerError
from profiles.history import read_history
from profiles.pseudonyms import Pseudonyms, names_of
from profiles.said import read_tail, text_key
from profiles.sealing import PROFILE, RECOMMENDATION
from profiles.state import RecordLayout, decode_records
from profiles.topics import DEAD_LETTERED, Topics
from profiles.wire import check_key, decode_json, encode
from stream.dead_letters import read_letters
from stream.letters import users_in
from stream.oracle.catalogue import read_catalogue
from stream.oracle.keys import opened, read_key_map
from stream.oracle.records import Raw, read_topic
from stream.outbox import Outbox

COMPONENTS = ("worker", "learner")
"""Who erases, each with a receipt of its own."""

POLL_S = 0.5


class Remembered(msgspec.Struct, frozen=True):
    """One event of the bounded history.  `item_id` is None when the catalogue lacks the item, and
    where the event was words: `text` has them while they are remembered."""

    item_id: str | None
    action: str
    value: float
    ts: float
    text: str | None = None


class ProfileExport(msgspec.Struct, frozen=True):
    """The stored profile: shapes profile (D,), interest (D,)."""

    events: int
    revision: int
    last_ts: float
    history: list[Remembered]
    profile: list[float]
    interest: list[float]
    interest_text: str


class Export(msgspec.Struct, frozen=True):
    """Everything in the topics about one user; messages as they stand there, oldest first."""

    user_id: str
    profile: ProfileExport | None
    declared: Any  # the users topic's newest message, whatever its producer put in
    events: list[Any]
    recommendations: list[Any]
    receipts: list[Any]
    dead_letters: list[dict[str, str]]


def export_user(settings: Settings, user_id: str) -> Export:
    """Collect what the topics hold about a user, under every name that she may have there.

    Raises: BadMessage, BrokerError, TopicError, SealError.
    """
    found = [_export(settings, name) for name in names_of(_names(settings), user_id)]
    return Export(
        user_id,
        next((one.profile for one in found if one.profile is not None), None),
        next((one.declared for one in found if one.declared is not None), None),
        [event for one in found for event in one.events],
        [output for one in found for output in one.recommendations],
        [receipt for one in found for receipt in one.receipts],
        [letter for one in found for letter in one.dead_letters],
    )


def _names(settings: Settings) -> Pseudonyms | None:
    return Pseudonyms.of(settings.privacy)


def _export(settings: Settings, user_id: str) -> Export:
    key, topics = check_key(user_id), Topics.under(settings.topics.prefix)
    own = [partition_of(key, settings.topics.partitions)]

    def of_user(topic: str) -> list[Raw]:
        return [raw for raw in read_topic(settings.broker, topic, own) if raw.key == key]

    keys = read_key_map(settings, own)
    declared = _newest(of_user(topics.users))
    stored = _newest(list(opened(of_user(topics.profiles), keys, PROFILE)))
    outputs = list(opened(of_user(topics.recommendations), keys, RECOMMENDATION))
    # A tombstone ends what stands before it, also while the log still has it.
    erased = [at for at, raw in enumerate(outputs) if raw.value is None]
    return Export(
        user_id,
        None if stored is None else _profile(settings, topics, stored),
        None if declared is None else _readable(declared),
        [_readable(raw.value) for raw in of_user(topics.events) if raw.value],
        [_readable(raw.value) for raw in outputs[erased[-1] + 1 if erased else 0 :] if raw.value],
        [_readable(raw.value) for raw in of_user(topics.receipts) if raw.value],
        list(_dead_letters(settings, topics, key)),
    )


async def request_erasures(
    settings: Settings, user_id: str, reason: str, retrain: bool = False
) -> list[Erasure]:
    """Ask workers and learner to forget a user: one request for each name that she may have.

    Raises: BadMessage, BrokerError, TopicError.
    """
    topics = Topics.under(settings.topics.prefix)
    erasures = [
        Erasure(uuid.uuid4().hex, name, time.time(), reason, retrain)
        for name in names_of(_names(settings), user_id)
    ]
    async with Outbox.connected(settings.broker) as outbox:
        await outbox.check_topics(topics.erasures)
        for erasure in erasures:
            await outbox.send(topics.erasures, erasure.user_id, encode(erasure))
        await outbox.drain()
    return erasures


def wait_for_receipts(
    settings: Settings, erasure: Erasure, components: Collection[str], timeout_s: float
) -> list[Receipt]:
    """The receipts of an erasure, once every component has sent one.

    Raises: BrokerError naming the components that did not within `timeout_s`; TopicError.
    """
    topic = Topics.under(settings.topics.prefix).receipts
    own = [partition_of(check_key(erasure.user_id), settings.topics.partitions)]
    deadline_s = time.monotonic() + timeout_s
    while True:
        found: dict[str, Receipt] = {}
        for raw in read_topic(settings.broker, topic, own):
            receipt = _receipt(raw.value)
            if receipt is not None and receipt.erasure_id == erasure.erasure_id:
                found[receipt.component] = receipt
        missing = sorted(set(components) - set(found))
        if not missing:
            return list(found.values())
        if time.monotonic() > deadline_s:
            raise BrokerError(
                f"no receipt from {' and '.join(missing)} within {timeout_s:g} s for erasure "
                f"{erasure.erasure_id}: it stands in the topic and is carried out when they run; "
                "look for its receipts then"
            )
        time.sleep(POLL_S)


def partition_of(key: bytes, partitions: int) -> int:
    """Where Kafka's default partitioner puts a key."""
    number: int = (murmur2(key) & 0x7FFFFFFF) % partitions
    return number


def _profile(settings: Settings, topics: Topics, payload: bytes) -> ProfileExport:
    catalogue = read_catalogue(read_topic(settings.broker, topics.items))
    names = dict(zip(catalogue.keys.tolist(), catalogue.ids, strict=True))
    actions = sorted(settings.actions)  # numbered as the workers number them
    records, tails = decode_records(RecordLayout.of(settings), [payload])
    history = read_history(records)
    kept = history.mask[0]
    tail = read_tail(tails[0])
    words = {text_key(text): text for text in tail.texts}
    return ProfileExport(
        int(records["events"][0]),
        int(records["revision"][0]),
        float(records["last_ts"][0]),
        [
            Remembered(names.get(item), actions[action], value, ts, words.get(item))
            for item, action, value, ts in zip(
                history.items[0, kept].tolist(),
                history.actions[0, kept].tolist(),
                history.values[0, kept].tolist(),
                history.ts[0, kept].tolist(),
                strict=True,
            )
        ],
        records["profile"][0].tolist(),
        records["interest"][0].tolist(),
        tail.interests,
    )


def _dead_letters(settings: Settings, topics: Topics, key: bytes) -> Iterator[dict[str, str]]:
    """Dead letters under the user's key, or whose text has her id in it."""
    for entity in DEAD_LETTERED:
        topic = topics.dlq(getattr(topics, entity))
        for raw in read_letters(settings.broker, topic):
            if users_in(raw, {key}) or key in (raw.value or b""):
                headers = {name: _text(value) for name, value in raw.headers}
                yield {"topic": topic, "value": _text(raw.value), **headers}


def _newest(records: list[Raw]) -> bytes | None:
    """The last value of a key in a compacted topic; None after a tombstone."""
    return records[-1].value if records else None


def _receipt(payload: bytes | None) -> Receipt | None:
    try:
        return decode_json(payload or b"", Receipt)
    except BadMessage:
        return None


def _readable(payload: bytes) -> Any:  # Any: a producer's JSON, or text that is none
    try:
        return msgspec.json.decode(payload)
    except msgspec.DecodeError:
        return _text(payload)


def _text(payload: bytes | None) -> str:
    return (payload or b"").decode("utf-8", "backslashreplace")
