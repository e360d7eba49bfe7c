"""How a worker is put together from its settings: no logic, only what is given to whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import faust

from profiles.audit import AuditLog
from profiles.broker_access import security_options
from profiles.catalog import Catalog
from profiles.config import Settings
from profiles.expected import expected_by
from profiles.item_text import item_text
from profiles.metrics import WorkerMetrics
from profiles.modalities import Modalities
from profiles.registry import ReleaseStore
from profiles.said import TextMemory
from profiles.sealing import MasterKeys
from profiles.settings.kafka import BrokerSettings
from profiles.signing import load_trusted
from profiles.state import RecordLayout
from profiles.topics import Topics
from profiles.tracing import Traces
from stream.broadcast import Broadcast
from stream.catalogue_feed import CatalogueFeed
from stream.chunks import ChunkApp
from stream.codecs import Rules
from stream.delivery import Delivery
from stream.event_path import EventPath
from stream.indexing import Indexer
from stream.language_model import LanguageModel
from stream.pace import Pace
from stream.partitions import Partitions
from stream.proofs import Proofs
from stream.publisher import Publisher
from stream.release_feed import ReleaseFeed
from stream.reporting import Reporting
from stream.state_thread import StateThread
from stream.sweep import Sweep
from stream.text_reader import TextReader
from stream.trending import Trending
from stream.worker import Worker

HEARTBEAT_S = 0.5
"""Whoever stays learns of a rebalance by its next heartbeat: this much of every pause."""


def new_app(settings: Settings, directory: Path) -> ChunkApp:
    """The Faust app: its group, its commits, none of its web server or tables."""
    serving, bootstrap = settings.serving, settings.broker.bootstrap
    return ChunkApp(
        serving.group,
        broker_credentials=_credentials(settings.broker),
        broker=[f"kafka://{address.strip()}" for address in bootstrap.split(",")],
        autodiscover=False,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        datadir=str(directory / "faust"),
        store="memory://",
        consumer_auto_offset_reset="earliest",
        broker_commit_interval=serving.commit_interval_s,
        broker_session_timeout=serving.session_timeout_s,
        broker_heartbeat_interval=HEARTBEAT_S,
        broker_max_poll_records=serving.chunk_records,
        stream_buffer_maxsize=8,
        stream_wait_empty=True,
        stream_processing_timeout=10 * serving.stall_after_s,
    )


def build_worker(
    settings: Settings,
    directory: Path,
    topics: Topics,
    ids: Mapping[str, str],
    metrics: WorkerMetrics,
    state: StateThread,
    language_model: LanguageModel,
    publisher: Publisher,
    items: Broadcast,
    fail: Callable[[BaseException], None],
    traces: Traces,
) -> Worker:
    """Put the parts of a worker together; `fail` is told what it cannot go on with."""
    serving = settings.serving
    # Sorted, as the learner has them: the order of a settings file must not matter.
    actions = {name: at for at, name in enumerate(sorted(settings.actions))}
    layout = RecordLayout.of(settings)
    catalog = Catalog(item_text(settings.data), Modalities.of(settings.model.vectors))
    memory = TextMemory(settings.profile.texts, settings.profile.text_chars)
    weights = {name: settings.actions[name] for name in actions}
    trending = Trending(catalog, serving, weights, metrics, directory / "trend.json")
    path = EventPath(layout, serving, actions, catalog, metrics, memory, trending)
    delivery = Delivery(publisher, topics, ids, metrics, fail)
    reader = TextReader(language_model, delivery, metrics)
    pace = Pace()
    sweep = Sweep(path, delivery, language_model, reader, state, metrics, serving.sweep_users, pace)
    partitions = Partitions(
        directory,
        settings.store,
        layout,
        settings.broker,
        topics,
        ids,
        state,
        metrics,
        fail,
        sweep.add,
        MasterKeys.of(settings.privacy),
    )
    indexer = Indexer(path, state, metrics, serving.exact_items)
    catalogue = CatalogueFeed(
        path, items, language_model, publisher, state, metrics, serving.max_message_bytes
    )

    def sweep_everyone() -> None:
        for source in partitions.sources():
            sweep.add(source)

    feed = ReleaseFeed(
        path,
        ReleaseStore(settings.store.releases, directory / "releases"),
        expected_by(settings),
        load_trusted(settings.security.trusted_keys),
        settings.profile.seen_bytes,
        catalogue,
        indexer,
        language_model,
        state,
        metrics,
        Proofs(directory / "proofs.json"),
        sweep_everyone,
        traces,
    )
    reporting = Reporting(
        path, feed, publisher, state, metrics, topics.outcomes, directory.name, settings.rollout
    )
    rules = Rules(
        actions,
        serving.max_message_bytes,
        serving.max_ahead_s,
        settings.privacy.after_erasure,
    )
    return Worker(
        path,
        trending,
        partitions,
        catalogue,
        feed,
        indexer,
        reporting,
        sweep,
        pace,
        language_model,
        reader,
        publisher,
        delivery,
        state,
        metrics,
        topics,
        rules,
        serving,
        AuditLog.of(settings),
        traces,
    )


def _credentials(broker: BrokerSettings) -> faust.auth.Credentials | None:
    """Who we are to Kafka, in Faust's words; the system's own clients say it by arguments."""
    if broker.security == "PLAINTEXT":
        return None
    options = security_options(broker)
    context = options.get("ssl_context")
    if broker.security == "SSL":
        return faust.SSLCredentials(context)
    return faust.SASLCredentials(
        username=options["sasl_plain_username"],
        password=options["sasl_plain_password"],
        ssl_context=context,
        mechanism=options["sasl_mechanism"],
    )
