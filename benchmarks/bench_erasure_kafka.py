"""How long an erasure takes over Kafka where 100,000 users are held: order to last receipt.

A real broker, one worker and one learner as users start them, encrypted (every user has a key of
her own to destroy), synthetic events.  Users are erased one after another with what
`driftline erase` calls; the clock runs from before the order is sent until both receipts are read.
Then one order for many, all at once.  Afterwards the oracle, which recomputes everything from the
topics, must find none of them, and the others unharmed.  `--pair` adds the same without encryption.

    make bench-erasure_kafka [BENCH_ARGS="--users 10000"]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.capacity import start_serving
from benchmarks.deployment import (
    Deployment,
    WorkerProcess,
    broker,
    deployment,
    synthetic_items,
    tiny_language_model,
    total,
    wait_until,
)
from benchmarks.harness import Result, hush_clients, load_average, median_and_range, report, say
from benchmarks.load import fill, synthetic_events
from profiles.erasures import Erasure
from profiles.key_file import add_key
from stream.broker import EmbeddedKafka
from stream.oracle import run_oracle
from stream.user_rights import COMPONENTS, request_erasures, wait_for_receipts

BAR_S = 60.0
WITHIN_S = 300.0
NO_ROUNDS = {"DRIFTLINE_LEARNER__MIN_EVENTS": "1000000000"}
"""A round would learn from made-up clicks: it is no part of what is measured."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--users", type=int, default=106_000, help="drawn from: 95% do anything")
    parser.add_argument("--events", type=int, default=3, help="of each user, on average")
    parser.add_argument("--items", type=int, default=1_000)
    parser.add_argument("--erased", type=int, default=10, help="one after another")
    parser.add_argument("--at-once", type=int, default=50, help="then so many together")
    parser.add_argument("--pair", action="store_true", help="also without encryption")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--name", default="erasure_kafka", help="of the result file")
    asked = parser.parse_args()
    hush_clients()
    started_load = load_average()
    found: Result = {}
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as directory, broker() as kafka:
        root = Path(directory)
        base = tiny_language_model(root / "base", asked.seed)
        for arm in ("encrypted", "plain") if asked.pair else ("encrypted",):
            found[arm] = _measure(kafka, root, base, arm, asked)
    report(asked.name, asked.seed, vars(asked), started_load, bar_s=BAR_S, **found)


def _measure(
    kafka: EmbeddedKafka, root: Path, base: Path, arm: str, asked: argparse.Namespace
) -> Result:
    overrides = dict(NO_ROUNDS)
    if arm == "encrypted":
        add_key(root / "master.keys", create=True)
        overrides["DRIFTLINE_PRIVACY__MASTER_KEY_FILE"] = str(root / "master.keys")
        overrides["DRIFTLINE_PRIVACY__ENCRYPTION"] = "true"
    items = synthetic_items(asked.items)
    with deployment(kafka, root / arm, arm, items, base, overrides) as made:
        events = synthetic_events(
            asked.users * asked.events, asked.users, asked.items, 4, asked.seed
        )
        # Erased are users who did something, evenly spread over who came when.
        seen = list(dict.fromkeys(events.users.tolist()))
        chosen = [f"user-{user}" for user in seen[:: len(seen) // (asked.erased + asked.at_once)]]
        one_by_one, together = chosen[: asked.erased], chosen[asked.erased :][: asked.at_once]
        worker = start_serving(made, made.new_release(asked.seed))
        learner = made.start_learner({})
        fill(made.bootstrap, made.topics.events, events)
        _wait_read(worker, learner, len(events))
        say(f"{arm}: {len(seen):,} users held, {len(events):,} events")
        seconds = [_erase(made, [user]) for user in one_by_one]
        many_s = _erase(made, together)
        worker.stop()
        learner.stop()
        found = run_oracle(made.settings)
        if found.faults() or found.users_erased != len(one_by_one) + len(together):
            raise RuntimeError(f"{found.users_erased} users erased; {found.faults()}")
        return {
            "users_held": len(seen),
            "events": len(events),
            "one_s": median_and_range(seconds),
            "each_s": [round(each, 2) for each in seconds],
            "at_once": len(together),
            "at_once_s": round(many_s, 2),
            "oracle_found_erased_users": found.erased_users_found,
        }


def _wait_read(worker: WorkerProcess, learner: WorkerProcess, events: int) -> None:
    wait_until(
        "all read by worker and learner",
        lambda: (
            total(worker.metrics(), "driftline_events_applied_total") >= events
            and total(learner.metrics(), "driftline_learner_events_total") >= events
        ),
        1800.0,
    )


def _erase(made: Deployment, users: Sequence[str]) -> float:
    """Seconds from before the orders until the last receipt of both components was read."""
    began = time.perf_counter()
    orders: list[Erasure] = []
    for user in users:
        orders += asyncio.run(request_erasures(made.settings, user, "benchmark"))
    for order in orders:
        wait_for_receipts(made.settings, order, COMPONENTS, WITHIN_S)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
