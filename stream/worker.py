"""The parts that agents work with, and how what they leave is sent.

One worker process has one of these; `stream.assembly` puts it together.
"""

from __future__ import annotations

from dataclasses import dataclass

from profiles.audit import AuditLog
from profiles.metrics import WorkerMetrics
from profiles.settings.serving import ServingSettings
from profiles.topics import Topics
from profiles.tracing import NO_SPAN, Span, Traces
from stream.catalogue_feed import CatalogueFeed
from stream.chunks import Chunk
from stream.codecs import DeadLetter, Rules
from stream.delivery import Delivery
from stream.event_path import EventPath
from stream.indexing import Indexer
from stream.language_model import LanguageModel
from stream.pace import Pace
from stream.partitions import Partitions
from stream.publisher import Publisher, Sent
from stream.release_feed import ReleaseFeed
from stream.reporting import Reporting
from stream.source import Outcome, Source
from stream.state_thread import StateThread
from stream.sweep import Sweep
from stream.text_reader import TextReader
from stream.tracing import carried_on
from stream.trending import Trending


@dataclass(frozen=True, slots=True)
class Worker:
    """The parts that agents work with."""

    path: EventPath
    trending: Trending
    partitions: Partitions
    catalogue: CatalogueFeed
    releases: ReleaseFeed
    indexer: Indexer
    reporting: Reporting
    sweep: Sweep
    pace: Pace
    language_model: LanguageModel
    reader: TextReader
    publisher: Publisher
    delivery: Delivery
    state: StateThread
    metrics: WorkerMetrics
    topics: Topics
    rules: Rules
    settings: ServingSettings
    audit: AuditLog
    traces: Traces

    def source(self, chunk: Chunk) -> Source:
        """The open partition that a chunk belongs to."""
        source = self.partitions.get(chunk.partition)
        assert source is not None, "agents wait for a partition to open"
        return source

    async def send_outcome(
        self, sent: Sent, chunk: Chunk, outcome: Outcome, around: Span = NO_SPAN
    ) -> None:
        """Queue the changelog and the recommendations of a chunk; `around`: its round's span."""
        with self.metrics.batch_seconds.labels("publish").time():
            topics, partition = self.topics, chunk.partition
            if outcome.keys:
                await self.publisher.send(sent, topics.keys, partition, outcome.keys)
            await self.publisher.send(sent, topics.profiles, partition, outcome.changelog)
            outputs = outcome.outputs
            if self.traces.is_on:
                outputs = carried_on(self.traces, around, chunk, outputs, sent)
            await self.publisher.send(sent, topics.recommendations, partition, outputs)

    async def send_dead(self, sent: Sent, chunk: Chunk, dead: list[DeadLetter]) -> None:
        """Queue a chunk's bad records for the dead-letter topic, and count them."""
        await self.publisher.send_dead(sent, chunk.topic, chunk.partition, dead)
        for letter in dead:
            self.metrics.dead_letters.labels(chunk.topic, letter.reason).inc()
