"""What a stream worker tells."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

LATENCY_BUCKETS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
)  # fmt: skip
STALL_BUCKETS_S = (0.001, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Fine around 20 ms, the longest that a swap may hold the event loop up."""
ROUND_BUCKETS_S = (1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)


class WorkerMetrics:
    """What a stream worker tells operators."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        ProcessCollector(registry=registry)
        self.events_applied = Counter(
            "driftline_events_applied", "Events that moved a profile", ["action"], registry=registry
        )
        self.duplicates = Counter(
            "driftline_duplicate_events",
            "Events skipped because they were applied before (kind: offset, id)",
            ["kind"],
            registry=registry,
        )
        self.events_refused = Counter(
            "driftline_events_refused",
            "Well-formed events that were dropped, without a dead letter (reason: rate)",
            ["reason"],
            registry=registry,
        )
        self.dead_letters = Counter(
            "driftline_dead_letters",
            "Messages sent to a dead-letter topic",
            ["topic", "reason"],
            registry=registry,
        )
        self.recommendations = Counter(
            "driftline_recommendations",
            "Recommendations produced (cause: event, request, replay)",
            ["cause"],
            registry=registry,
        )
        self.hand_overs = Counter(
            "driftline_hand_overs",
            "Recommendations that ask for a human (reason: unsure, uncalibrated, nothing)",
            ["reason"],
            registry=registry,
        )
        self.predictions = Counter(
            "driftline_predictions",
            "Requests for the probability of items they name (calibrated: yes; no: the serving "
            "release gives none, and neither does the answer)",
            ["calibrated"],
            registry=registry,
        )
        self.latency = Histogram(
            "driftline_event_to_recommendation_seconds",
            "From the producer's Kafka timestamp to the acknowledged recommendation",
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "driftline_batch_seconds",
            "Time spent on one batch of events (phase: apply, publish)",
            ["phase"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.batch_events = Histogram(
            "driftline_batch_events",
            "Events in one batch",
            buckets=(1, 4, 16, 64, 256, 1024, 4096),
            registry=registry,
        )
        self.lag_records = Gauge(
            "driftline_lag_records",
            "Records between the position of this worker and the end",
            ["topic", "partition"],
            registry=registry,
        )
        self.lag_seconds = Gauge(
            "driftline_lag_seconds",
            "Age of the oldest record that was fetched and is not done; of what was not fetched, "
            "how long it has been waiting; 0 where nothing waits",
            ["topic", "partition"],
            registry=registry,
        )
        self.recommendations_owed = Gauge(
            "driftline_recommendations_owed",
            "Users whose recommendation waits: for their interval, or for this worker to catch up",
            registry=registry,
        )
        self.store_bytes = Gauge(
            "driftline_store_bytes",
            "Bytes on disk of a partition's store",
            ["partition"],
            registry=registry,
        )
        self.profiles = Gauge(
            "driftline_profiles", "Profiles held, per partition", ["partition"], registry=registry
        )
        self.profiles_stale = Gauge(
            "driftline_profiles_stale",
            "Profiles not yet rebuilt in the serving release's space",
            registry=registry,
        )
        self.profiles_rebuilt = Counter(
            "driftline_profiles_rebuilt",
            "Profiles rebuilt after a swap (path: touch, sweep)",
            ["path"],
            registry=registry,
        )
        self.swaps = Counter(
            "driftline_swaps", "Releases swapped in while serving", registry=registry
        )
        self.swap_seconds = Histogram(
            "driftline_swap_seconds",
            "Time of a swap's phases (fetch, verify, load, flip)",
            ["phase"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.releases_refused = Counter(
            "driftline_releases_refused",
            "Releases this worker refused",
            ["reason"],
            registry=registry,
        )
        self.release = Info("driftline_serving_release", "The serving release", registry=registry)
        self.release_sequence = Gauge(
            "driftline_serving_release_sequence", "Its sequence number", registry=registry
        )
        self.release_created = Gauge(
            "driftline_serving_release_created_timestamp_seconds",
            "When the serving release was made",
            registry=registry,
        )
        self.evaluated = Counter(
            "driftline_prequential_events",
            "Events ranked before they were applied",
            ["release"],
            registry=registry,
        )
        self.hits = Counter(
            "driftline_prequential_hits",
            "Of these, how often the item was among the first ten",
            ["release"],
            registry=registry,
        )
        self.gain = Counter(
            "driftline_prequential_ndcg",
            "Sum of NDCG@10 over the same events",
            ["release"],
            registry=registry,
        )
        self.index_seconds = Histogram(
            "driftline_candidate_index_seconds",
            "Time to build an index of candidates beside the serving one",
            buckets=ROUND_BUCKETS_S,
            registry=registry,
        )
        self.candidates_checked = Counter(
            "driftline_candidates_checked",
            "Best items of a sample of recommendations, ranked exactly beside the index",
            registry=registry,
        )
        self.candidates_found = Counter(
            "driftline_candidates_found",
            "Of these, how many the index proposed; their ratio is the recall",
            registry=registry,
        )
        self.canary_share = Gauge(
            "driftline_canary_share",
            "Part of the users served by a canary here; 0 without one",
            registry=registry,
        )
        self.outcome_windows = Counter(
            "driftline_outcome_windows",
            "Reports of live outcomes sent to the learner",
            registry=registry,
        )
        self.restore_remaining = Gauge(
            "driftline_restore_remaining_records",
            "Changelog records still to read before a partition is ready",
            ["partition"],
            registry=registry,
        )
        self.ready = Gauge("driftline_ready", "1 when this worker serves", registry=registry)
        self.loop_lag = Histogram(
            "driftline_event_loop_lag_seconds",
            "How late the event loop woke from a timed sleep: what blocks it shows here",
            buckets=STALL_BUCKETS_S,
            registry=registry,
        )
        self.items = Gauge("driftline_catalogue_items", "Items in the catalogue", registry=registry)
        self.vectors = Gauge(
            "driftline_catalogue_vectors",
            "Items in the catalogue that have this vector beside their text (model.vectors)",
            ["modality"],
            registry=registry,
        )
        self.trend_events = Gauge(
            "driftline_trend_events",
            "Recent events behind what trends, each worth half after serving.trend_half_life_s",
            registry=registry,
        )
        self.trending_items = Gauge(
            "driftline_trending_items",
            "Items whose score is lifted by 1 or more: e times as likely as the release says",
            registry=registry,
        )
        self.exposure_coverage = Gauge(
            "driftline_exposure_coverage",
            "Share of the items on sale that this worker showed in the window",
            registry=registry,
        )
        self.exposure_gini = Gauge(
            "driftline_exposure_gini",
            "How unevenly its slots fell to items: 0 evenly, 1 all to one",
            registry=registry,
        )
        self.exposure_popularity = Gauge(
            "driftline_exposure_popularity",
            "Mean popularity of its slots' items, as a share of the catalogue: 0.5 has no bias",
            registry=registry,
        )
        self.exposure_top_item = Gauge(
            "driftline_exposure_top_item",
            "Share of its recommendations in the window that hold the item shown most",
            registry=registry,
        )
        self.exposure_capped = Gauge(
            "driftline_exposure_capped_items",
            "Items at serving.exposure_cap, kept back until they are shown less",
            registry=registry,
        )
        self.exposure_share = Gauge(
            "driftline_exposure_share",
            "Share of its slots that went to items of a tag (serving.exposure_tags)",
            ["tag"],
            registry=registry,
        )
        self.catalogue_share = Gauge(
            "driftline_exposure_catalogue_share",
            "Share of the items on sale that carry the tag, to compare with",
            ["tag"],
            registry=registry,
        )
        self.items_blocked = Gauge(
            "driftline_catalogue_items_blocked",
            "Of these, how many an order keeps from everybody",
            registry=registry,
        )
        self.items_encoded = Counter(
            "driftline_items_encoded",
            "Item texts this worker encoded itself: newer than the release, or changed since",
            registry=registry,
        )
        self.rules_loads = Counter(
            "driftline_rules_loads",
            "Changed rules files looked at (outcome: taken, refused)",
            ["outcome"],
            registry=registry,
        )
        self.texts_read = Counter(
            "driftline_texts_read",
            "Words of events that the language model has read: once per release while in memory",
            registry=registry,
        )
        self.stores_quarantined = Counter(
            "driftline_stores_quarantined",
            "Local stores found damaged, set aside and rebuilt",
            registry=registry,
        )
        self.sealed_refused = Counter(
            "driftline_sealed_records_refused",
            "Encrypted changelog records passed over in a restore: erased users', and damaged ones",
            registry=registry,
        )
        self.users_erased = Counter(
            "driftline_users_erased", "Erasures carried out by this worker", registry=registry
        )
        self.erased_messages = Counter(
            "driftline_erased_users_messages",
            "Messages of erased users (what: before, older than the erasure and read again; "
            "forgotten; refused)",
            ["what"],
            registry=registry,
        )
        self.keys_rewrapped = Counter(
            "driftline_keys_rewrapped",
            "Users' keys wrapped anew by a newer master key",
            registry=registry,
        )
