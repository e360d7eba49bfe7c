"""A few events that no worker can use, produced on purpose, so that dead letters are seen."""

from __future__ import annotations

import json

from kafka import KafkaProducer
from kafka.errors import KafkaError

from profiles.errors import BrokerError

USER = "demo-guest"
LABEL = ("driftline-demo", b"bad on purpose")
TIMEOUT_S = 30.0


def bad_events(ts: float) -> list[bytes]:
    """Cut-off JSON, an action without a weight, an item that nobody knows, a missing field."""
    good = {
        "event_id": "demo-bad",
        "user_id": USER,
        "item_id": "1",
        "action": "rate",
        "value": 5,
        "ts": ts,
    }
    unknown_action = {**good, "event_id": "demo-bad-action", "action": "sneeze"}
    unknown_item = {**good, "event_id": "demo-bad-item", "item_id": "no-such-item"}
    no_item = {name: value for name, value in good.items() if name != "item_id"}
    return [
        json.dumps(good).encode()[:40],
        json.dumps(unknown_action).encode(),
        json.dumps(unknown_item).encode(),
        json.dumps(no_item).encode(),
    ]


def produce_bad_events(bootstrap: str, topic: str, ts: float) -> int:
    """Send them, labelled by a header.  Returns: how many.  Raises: BrokerError."""
    payloads = bad_events(ts)
    try:
        producer = KafkaProducer(bootstrap_servers=bootstrap.split(","), acks="all")
        try:
            sent = [
                producer.send(topic, key=USER.encode(), value=payload, headers=[LABEL])
                for payload in payloads
            ]
            for future in sent:
                future.get(TIMEOUT_S)
        finally:
            producer.close(timeout=TIMEOUT_S)
    except KafkaError as error:
        raise BrokerError(f"the demo's bad events were not accepted: {error!r}") from error
    return len(payloads)
