"""Write items, events and a request; read the recommendations that come back.

Run it beside a broker, a learner and a worker:

    driftline broker & driftline learn & driftline worker &
    python examples/produce_and_read.py --user alice

What an application must get right is all here: the record's key is the user's (or item's) id, a
user's records are partitioned by that key in the same way everywhere (kafka-python's default, the
Java clients' murmur2), and recommendations are de-duplicated by `output_id`, because delivery is
at least once.  Payloads are JSON; docs/reference/schemas/ describes each.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import uuid
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

ITEMS = (
    ("lamp-1", "Reading lamp", "Warm light on a bendable arm, for desk or bed.", ["lighting"]),
    ("lamp-2", "Floor lamp", "Tall lamp with a linen shade and a foot switch.", ["lighting"]),
    ("lamp-3", "Camping lantern", "Rechargeable, waterproof, hangs in a tent.", ["outdoor"]),
    ("tent-1", "Two-person tent", "Light tent for hikers, up in five minutes.", ["outdoor"]),
    ("bag-1", "Sleeping bag", "Down bag for nights around freezing.", ["outdoor"]),
    ("stove-1", "Gas stove", "Small stove for coffee on the trail.", ["outdoor", "kitchen"]),
    ("pan-1", "Cast-iron pan", "Heavy pan for searing, lasts for life.", ["kitchen"]),
    ("knife-1", "Chef's knife", "Twenty centimetres of hard steel.", ["kitchen"]),
)
ACTS = (("tent-1", "view"), ("bag-1", "view"), ("tent-1", "like"))


def main() -> int:
    """Produce, then wait for the answer to the request."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--bootstrap", default="127.0.0.1:9092", help="host:port of Kafka")
    parser.add_argument("--user", default="alice", help="the user who acts and asks")
    parser.add_argument("--prefix", default="driftline", help="topic prefix")
    parser.add_argument("--wait-s", type=float, default=30.0, help="how long to wait")
    args = parser.parse_args()

    reader = follow(args.bootstrap, f"{args.prefix}.recommendations.v1")
    request_id = produce(args.bootstrap, args.prefix, args.user)
    answered = read(reader, args.user, request_id, args.wait_s)
    reader.close()
    if not answered:
        print(
            f"no answer within {args.wait_s:g} s: is a worker ready (/readyz), and does a release "
            "serve (`driftline releases list`)?",
            file=sys.stderr,
        )
    return 0 if answered else 1


def produce(bootstrap: str, prefix: str, user: str) -> str:
    """Write the catalogue, what the user did, and a request; returns the request's id."""
    producer = KafkaProducer(
        bootstrap_servers=bootstrap.split(","),
        acks="all",
        enable_idempotence=True,  # a retried send keeps its place and is written once
    )
    for item_id, title, text, tags in ITEMS:
        item = {"item_id": item_id, "title": title, "text": text, "tags": tags}
        producer.send(f"{prefix}.items.v1", key=item_id.encode(), value=as_json(item))
    producer.flush()  # items first: an event of an unknown item waits 2 s, then is a dead letter
    for item_id, action in ACTS:
        event = {
            "event_id": uuid.uuid4().hex,  # the same id again is the same event again
            "user_id": user,
            "item_id": item_id,
            "action": action,
            "ts": time.time(),
        }
        producer.send(f"{prefix}.events.v1", key=user.encode(), value=as_json(event))
    producer.flush()
    request_id = uuid.uuid4().hex
    request = {
        "request_id": request_id,
        "user_id": user,
        "k": 3,
        "filters": {"no_tags": ["kitchen"]},
    }
    producer.send(f"{prefix}.requests.v1", key=user.encode(), value=as_json(request))
    producer.flush()
    producer.close()
    print(f"sent {len(ITEMS)} items, {len(ACTS)} events and a request for {user}")
    return request_id


def as_json(value: dict[str, Any]) -> bytes:
    """What goes on the wire."""
    return json.dumps(value).encode()


def follow(bootstrap: str, topic: str) -> Any:  # Any: kafka-python has no type information
    """A consumer of every partition, from now on."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap.split(","), enable_auto_commit=False)
    numbers = consumer.partitions_for_topic(topic)
    if not numbers:
        raise SystemExit(f"topic {topic} does not exist: run `driftline topics create`")
    consumer.assign([TopicPartition(topic, number) for number in numbers])
    consumer.seek_to_end()
    for tp in consumer.assignment():
        consumer.position(tp)  # settles "the end" now, before anything is produced
    return consumer


def read(consumer: Any, user: str, request_id: str, wait_s: float) -> bool:
    """Print what arrives for the user until the request is answered."""
    seen: set[str] = set()
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        for records in consumer.poll(timeout_ms=500).values():
            for record in records:
                if record.value is None:
                    continue  # a tombstone: this user was erased
                answer = json.loads(record.value)
                if answer["user_id"] != user or answer["output_id"] in seen:
                    continue
                seen.add(answer["output_id"])
                show(answer)
                if answer["cause_id"] == request_id:
                    return True
    return False


def show(answer: dict[str, Any]) -> None:
    """One recommendation, for people."""
    print(f"\nbecause of {answer['cause']} {answer['cause_id']}, by {answer['release_id']}:")
    for rank, item in enumerate(answer["items"], start=1):
        reasons = [reason.get("title", reason["kind"]) for reason in item.get("reasons", [])]
        name = item.get("title", item["item_id"])
        print(f"  {rank}. {name}  {item['score']:.3f}  ({', '.join(dict.fromkeys(reasons))})")


if __name__ == "__main__":
    sys.exit(main())
