"""Write items, events and a request; read the recommendations that come back.

Run it beside a broker, a learner and a worker:

    driftline broker & driftline learn & driftline worker &
    python examples/produce_and_read.py --user alice

It uses driftline's own client.  What the client gets right for you, and what an application in
another language must do itself: a record's key is the user's (or item's) id, partitioned by
murmur2 like the Java clients do, and recommendations are de-duplicated by `output_id`, because
delivery is at least once.  Payloads are JSON; docs/reference/schemas/ describes each.
"""

from __future__ import annotations

import argparse
import sys

from stream.client import Driftline, DriftlineError, Filters, Item, Recommendation

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
    """Produce, ask, and show what comes back."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--bootstrap", help="host:port of Kafka; default: the settings'")
    parser.add_argument("--user", default="alice", help="the user who acts and asks")
    parser.add_argument("--prefix", help="topic prefix; default: the settings'")
    parser.add_argument("--wait-s", type=float, default=30.0, help="how long to wait")
    args = parser.parse_args()
    try:
        with Driftline(bootstrap=args.bootstrap, prefix=args.prefix) as driftline:
            talk(driftline, args.user, args.wait_s)
    except DriftlineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def talk(driftline: Driftline, user: str, wait_s: float) -> None:
    """The whole conversation.  Raises: DriftlineError."""
    # Subscribed before anything is produced: a subscription begins now.
    with driftline.subscribe(users=[user]) as recommendations:
        # Items first: an event of an unknown item waits 2 s, then it is a dead letter.
        driftline.put_items(Item(name, title, text, tags) for name, title, text, tags in ITEMS)
        for item_id, action in ACTS:
            driftline.act(user, item_id, action)
        print(f"sent {len(ITEMS)} items and {len(ACTS)} events for {user}")
        show(driftline.recommend(user, k=3, filters=Filters(no_tags=["kitchen"]), timeout_s=wait_s))
        while (found := recommendations.next(timeout_s=1.0)) is not None:
            if found.cause == "event":
                show(found)


def show(answer: Recommendation) -> None:
    """One recommendation, for people."""
    print(f"\nbecause of {answer.cause} {answer.cause_id}, by {answer.release_id}:")
    for rank, item in enumerate(answer.items, start=1):
        reasons = dict.fromkeys(reason.title or reason.kind for reason in item.reasons)
        print(f"  {rank}. {item.title or item.item_id}  {item.score:.3f}  ({', '.join(reasons)})")


if __name__ == "__main__":
    sys.exit(main())
