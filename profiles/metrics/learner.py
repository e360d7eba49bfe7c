"""What the learner tells."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

ROUND_BUCKETS_S = (1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)


class LearnerMetrics:
    """What the learner tells operators."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        ProcessCollector(registry=registry)
        self.gpu_bytes = Gauge(
            "driftline_learner_gpu_bytes",
            "Memory that torch has taken of the GPU (kind: used, reserved); absent without one",
            ["kind"],
            registry=registry,
        )
        self.events_consumed = Counter(
            "driftline_learner_events", "Events read by the learner", registry=registry
        )
        self.events_rejected = Counter(
            "driftline_learner_events_rejected",
            "Events the learner could not use",
            ["reason"],
            registry=registry,
        )
        self.lag_records = Gauge(
            "driftline_learner_lag_records", "Records the learner is behind", registry=registry
        )
        self.buffer_bytes = Gauge(
            "driftline_replay_buffer_bytes", "Bytes held in the replay buffer", registry=registry
        )
        self.buffer_events = Gauge(
            "driftline_replay_buffer_events", "Events held in the replay buffer", registry=registry
        )
        self.rounds = Counter(
            "driftline_learning_rounds",
            "Learning rounds (outcome: promoted, that is past the gate; refused; failed)",
            ["outcome"],
            registry=registry,
        )
        self.round_seconds = Histogram(
            "driftline_learning_round_seconds",
            "Time of a round's phases (head, lora, evaluate, publish, total)",
            ["phase"],
            buckets=ROUND_BUCKETS_S,
            registry=registry,
        )
        self.round_running = Gauge(
            "driftline_learning_round_running", "1 while a round runs", registry=registry
        )
        self.quality = Gauge(
            "driftline_learner_ndcg10",
            "NDCG@10 of the last round (who: parent, candidate; slice: recent, long_ago)",
            ["who", "slice"],
            registry=registry,
        )
        self.forgetting = Gauge(
            "driftline_forgetting",
            "NDCG@10 lost on long-ago events by the last promoted release (relative)",
            registry=registry,
        )
        self.unknown_tokens = Gauge(
            "driftline_catalogue_unknown_tokens_ratio",
            "Share of the catalogue's tokens that the language model's tokenizer does not know, "
            "when the last release was made",
            registry=registry,
        )
        self.epsilon = Gauge(
            "driftline_privacy_epsilon",
            "Epsilon of the last release made and its ancestors, per user (0: not private)",
            registry=registry,
        )
        self.drift = Counter(
            "driftline_drift_detected", "Times drift made a round due", registry=registry
        )
        self.loss = Gauge(
            "driftline_training_loss", "Last training loss", ["phase"], registry=registry
        )
        self.rollout_stage = Gauge(
            "driftline_rollout_stage",
            "1 for the stage that a rollout is in (stage: shadow, canary, watch)",
            ["stage"],
            registry=registry,
        )
        self.rollout_decisions = Counter(
            "driftline_rollout_decisions",
            "Verdicts of rollouts (decision: canary, serving, refused, rolled-back)",
            ["decision"],
            registry=registry,
        )
        self.rollout_events = Gauge(
            "driftline_rollout_events",
            "Events that the stage has seen (evidence: paired by the learner, live by the workers)",
            ["evidence"],
            registry=registry,
        )
        self.rollout_ndcg10 = Gauge(
            "driftline_rollout_ndcg10",
            "NDCG@10 on the stage's events (evidence: paired, live; who: candidate, rival)",
            ["evidence", "who"],
            registry=registry,
        )
        self.rollout_odds = Gauge(
            "driftline_rollout_log10_odds",
            "Evidence against a hypothesis; a verdict at log10(2 / alpha) (shows: harm, no_harm)",
            ["evidence", "shows"],
            registry=registry,
        )
        self.frozen = Gauge(
            "driftline_releases_frozen", "1 while an order stops promotions", registry=registry
        )
        self.rollbacks = Counter(
            "driftline_auto_rollbacks",
            "Releases rolled back because they did harm live",
            registry=registry,
        )
        self.tracker_failures = Counter(
            "driftline_tracker_failures",
            "Rounds whose experiment tracker failed and was left aside",
            registry=registry,
        )
