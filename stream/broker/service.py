"""`driftline broker`: the embedded Kafka with its topics, in the foreground, until a signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from profiles.errors import BrokerError
from profiles.topics import DEFAULT_PARTITIONS, DEFAULT_PREFIX, topic_specs
from stream.broker.artefacts import find_java, kafka_jars
from stream.broker.embedded import FAST_START, EmbeddedKafka
from stream.topic_admin import create_topics

__all__ = ["run_broker"]

LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Fetched:
    """What the cache has: Java's path, and how many verified jars in which folder."""

    java: str
    jars: int
    folder: str

    def in_words(self) -> str:
        """For people."""
        return f"Java is {self.java}; {self.jars} verified jars are in {self.folder}"


@dataclass(frozen=True, slots=True)
class Started:
    """Where the broker is, where its data and log are, and how many topics it made."""

    bootstrap: str
    data_dir: str
    prefix: str
    topics_created: int

    def in_words(self) -> str:
        """For people."""
        return (
            f"Kafka is at {self.bootstrap}; its data and log are in {self.data_dir}\n"
            f"created {self.topics_created} topics under {self.prefix!r}; stop it with Ctrl-C"
        )


def run_broker(
    *,
    port: int = 9092,
    data_dir: Path | None = None,
    fetch_only: bool = False,
    partitions: int = DEFAULT_PARTITIONS,
    prefix: str = DEFAULT_PREFIX,
    jvm_options: Sequence[str] = FAST_START,
    tell: Callable[[Fetched | Started], None] = lambda told: print(told.in_words()),
) -> None:
    """Start Kafka, create the missing topics, say where it is, and wait for SIGINT or SIGTERM.

    With `fetch_only`, have Java and the jars in the cache, verified, and return. Call it in the
    main thread, which is where Python handles signals.

    Raises: BrokerError if the broker cannot start or ends by itself; TopicError.
    """
    if fetch_only:
        jars = kafka_jars()
        tell(Fetched(str(find_java()), len(jars), str(jars[0].parent)))
        return
    wanted = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        wanted.set()

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with EmbeddedKafka(data_dir, port=port, jvm_options=jvm_options) as kafka:
            created = create_topics(kafka.bootstrap, topic_specs(prefix, partitions))
            tell(Started(kafka.bootstrap, str(kafka.data_dir), prefix, len(created)))
            while not wanted.wait(LOOK_EVERY_S):
                if not kafka.is_running:
                    raise BrokerError(
                        f"the embedded Kafka ended by itself; the end of its log says:\n"
                        f"{kafka.log_tail()}"
                    )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
