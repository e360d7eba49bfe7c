"""The peers, each consuming one topic to its end, in the interpreter of .venv-bench.

Each runs in one process on one core and prints, as its last line, how many events it took and in
how many seconds: from the first event (or batch) that it saw, which is not counted, to the last.
Peers get what helps them (uvloop, orjson, their compiled parts, their own defaults); none of them
produces a recommendation.

Any: the peers are installed beside our lock file, not in it, and have no types there.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROFILE_BYTES = 880


class Meter:
    """Counts events between the first and the last."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._total = 0
        self._first = 0
        self._started_s = 0.0
        self._started_cpu_s = 0.0
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self.durable_seconds: float | None = None

    def add(self, events: int = 1) -> bool:
        """Count; True when that was the last."""
        if not self._total:
            self._first = events
            self._started_s = time.perf_counter()
            self._started_cpu_s = time.process_time()
        self._total += events
        if self._total < self._count:
            return False
        self.seconds = time.perf_counter() - self._started_s
        self.cpu_seconds = time.process_time() - self._started_cpu_s
        return True

    def add_checkpoint(self) -> None:
        """What was only in memory after the last event is now stored, too."""
        self.durable_seconds = time.perf_counter() - self._started_s

    @property
    def events(self) -> int:
        """Events that `seconds` were spent on."""
        return self._total - self._first


def faust_empty(bootstrap: str, topic: str, meter: Meter, directory: Path) -> None:
    """A Faust agent that takes raw bytes and does nothing with them."""

    def declare(app: Any, done: asyncio.Event) -> None:
        async def empty(stream: Any) -> None:
            async for _ in stream:
                if meter.add():
                    done.set()

        channel = app.topic(topic, key_serializer="raw", value_serializer="raw")
        app.agent(channel, name="empty")(empty)

    _run_faust(bootstrap, directory, "memory://", declare)


def faust_table(bootstrap: str, topic: str, meter: Meter, directory: Path) -> None:
    """A Faust agent that decodes JSON (orjson) and counts per user in a Table kept in memory."""
    _faust_counter(bootstrap, topic, meter, directory, "memory://")


def faust_table_rocksdb(bootstrap: str, topic: str, meter: Meter, directory: Path) -> None:
    """The same with Faust's RocksDB store (rocksdict)."""
    _faust_counter(bootstrap, topic, meter, directory, "rocksdb://?driver=rocksdict")


def _faust_counter(bootstrap: str, topic: str, meter: Meter, directory: Path, store: str) -> None:

    def declare(app: Any, done: asyncio.Event) -> None:
        table = app.Table("counts", default=int, partitions=app.conf.topic_partitions)

        async def count(stream: Any) -> None:
            async for user, _ in stream.items():
                table[user] += 1
                if meter.add():
                    done.set()

        channel = app.topic(topic, key_serializer="raw", value_serializer="json")
        app.agent(channel, name="count")(count)

    _run_faust(bootstrap, directory, store, declare)


def _run_faust(
    bootstrap: str, directory: Path, store: str, declare: Callable[[Any, asyncio.Event], None]
) -> None:
    """Run an app until its agent says that it is done.

    The loop is not closed: closing cancels what still runs in it and waits for that, and Faust's
    tasks do not end.  A run that was over looked like one that hangs.
    """
    faust: Any = importlib.import_module("faust")
    uvloop: Any = importlib.import_module("uvloop")

    async def main() -> None:
        app = faust.App(
            f"bench-{directory.name}",
            broker=f"kafka://{bootstrap}",
            store=store,
            datadir=str(directory),
            web_enabled=False,
            autodiscover=False,
            topic_partitions=4,
            topic_disable_leader=True,
            consumer_auto_offset_reset="earliest",
        )
        done = asyncio.Event()
        declare(app, done)
        await app.start()
        await done.wait()

    uvloop.new_event_loop().run_until_complete(main())


def quix(bootstrap: str, topic: str, meter: Meter, directory: Path) -> None:
    """Quix Streams: JSON decoded, a count per user in its RocksDB state, changelog on (default)."""

    def count(value: Any, state: Any) -> Any:
        state.set("count", state.get("count", 0) + 1)
        return value

    _run_quix(bootstrap, topic, meter, directory, count)


def quix_profile(bootstrap: str, topic: str, meter: Meter, directory: Path) -> None:
    """The same, with as many bytes of state per user as a young profile of ours has (0.9 KB).

    The bytes are read, changed in one place and written back: no arithmetic, only the state.
    """
    blank = os.urandom(PROFILE_BYTES)

    def touch(value: Any, state: Any) -> Any:
        profile = bytearray(state.get_bytes("profile", blank))
        profile[0] = (profile[0] + 1) & 255
        state.set_bytes("profile", bytes(profile))
        return value

    _run_quix(bootstrap, topic, meter, directory, touch)


def _run_quix(
    bootstrap: str,
    topic: str,
    meter: Meter,
    directory: Path,
    reduce: Callable[[Any, Any], Any],
) -> None:
    """Run a stateful reducer.

    Quix keeps changes in memory until a checkpoint (every 5 s by default), which then writes
    them to RocksDB and the changelog.  A run may end before the first one; so the time until
    the last checkpoint is done is given as well (`durable_seconds`).
    """
    quixstreams: Any = importlib.import_module("quixstreams")
    app = quixstreams.Application(
        broker_address=bootstrap,
        consumer_group=f"bench-{directory.name}",
        auto_offset_reset="earliest",
        state_dir=str(directory / "state"),
        loglevel="ERROR",
    )

    def take(value: Any, state: Any) -> Any:
        reduced = reduce(value, state)
        if meter.add():
            app.stop()
        return reduced

    frame = app.dataframe(app.topic(topic, key_deserializer="bytes", value_deserializer="json"))
    frame.apply(take, stateful=True)
    app.run()
    meter.add_checkpoint()


def bytewax(bootstrap: str, topic: str, meter: Meter, directory: Path) -> None:
    """bytewax: JSON decoded (orjson), `stateful_map` per user, in memory, no recovery store."""
    op: Any = importlib.import_module("bytewax.operators")
    kafka: Any = importlib.import_module("bytewax.connectors.kafka")
    testing: Any = importlib.import_module("bytewax.testing")
    flow: Any = importlib.import_module("bytewax.dataflow").Dataflow("bench")
    loads = importlib.import_module("orjson").loads

    def count(state: int | None, message: Any) -> tuple[int, None]:
        loads(message.value)
        meter.add()
        return (state or 0) + 1, None

    source = kafka.KafkaSource([bootstrap], [topic], tail=False, batch_size=1000)
    messages = op.input("events", flow, source)
    keyed = op.key_on("user", messages, lambda message: message.key.decode())
    counted = op.stateful_map("count", keyed, count)
    op.output("nowhere", op.filter("none", counted, lambda _: False), testing.TestingSink([]))
    testing.run_main(flow)


def aiokafka(bootstrap: str, topic: str, meter: Meter, directory: Path) -> None:
    """aiokafka's getmany: bytes fetched and thrown away."""
    client: Any = importlib.import_module("aiokafka")
    uvloop: Any = importlib.import_module("uvloop")

    async def main() -> None:
        consumer = client.AIOKafkaConsumer(
            topic,
            bootstrap_servers=bootstrap,
            group_id=f"bench-{directory.name}",
            auto_offset_reset="earliest",
        )
        await consumer.start()
        done = False
        while not done:
            fetched = await consumer.getmany(timeout_ms=1000, max_records=1000)
            taken = sum(map(len, fetched.values()))
            done = bool(taken) and meter.add(taken)

    uvloop.run(main())


def confluent(bootstrap: str, topic: str, meter: Meter, directory: Path) -> None:
    """confluent-kafka's consume(1000): bytes fetched by librdkafka's own threads, thrown away."""
    client: Any = importlib.import_module("confluent_kafka")
    consumer = client.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"bench-{directory.name}",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([topic])
    done = False
    while not done:
        taken = len(consumer.consume(1000, timeout=1.0))
        done = bool(taken) and meter.add(taken)


CONTENDERS: dict[str, Callable[[str, str, Meter, Path], None]] = {
    "faust_empty": faust_empty,
    "faust_table": faust_table,
    "faust_table_rocksdb": faust_table_rocksdb,
    "quix": quix,
    "quix_profile": quix_profile,
    "bytewax": bytewax,
    "aiokafka": aiokafka,
    "confluent": confluent,
}
NEEDS = {
    "faust_empty": "faust",
    "faust_table": "faust",
    "faust_table_rocksdb": "rocksdict",
    "quix": "quixstreams",
    "quix_profile": "quixstreams",
    "bytewax": "bytewax",
    "aiokafka": "aiokafka",
    "confluent": "confluent_kafka",
}


def main() -> None:
    parser = argparse.ArgumentParser(description="one peer, from the first event to the last")
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("bootstrap")
    parser.add_argument("topic")
    parser.add_argument("count", type=int)
    parser.add_argument("directory", type=Path)
    asked = parser.parse_args()
    meter = Meter(asked.count)
    CONTENDERS[asked.name](asked.bootstrap, asked.topic, meter, asked.directory)
    found: dict[str, float] = {
        "events": meter.events,
        "seconds": meter.seconds,
        "cpu_us_per_event": 1e6 * meter.cpu_seconds / max(meter.events, 1),
    }
    if meter.durable_seconds is not None:
        found["durable_seconds"] = meter.durable_seconds
    print(json.dumps(found), flush=True)
    sys.stderr.flush()
    # Consumers that are not closed take seconds, some for ever; what was measured is over.
    os._exit(0)


if __name__ == "__main__":
    main()
