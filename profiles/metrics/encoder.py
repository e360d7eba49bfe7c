"""What the shared encoder tells."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector


class EncoderMetrics:
    """What a shared encoder tells operators."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        ProcessCollector(registry=registry)
        self.ready = Gauge(
            "driftline_encoder_ready", "1 once the base models are loaded", registry=registry
        )
        self.texts = Counter(
            "driftline_encoder_texts", "Texts read, by domain", ["domain"], registry=registry
        )
        self.adapters = Gauge("driftline_encoder_adapters", "Adapters in memory", registry=registry)
        self.adapter_bytes = Gauge(
            "driftline_encoder_adapter_bytes", "What they weigh", registry=registry
        )
        self.evicted = Counter(
            "driftline_encoder_evicted",
            "Adapters that had to make room for others; many a minute: the budget is too small",
            registry=registry,
        )
        self.refused = Counter(
            "driftline_encoder_refused",
            "Asks refused (reason: foreign-adapter, adapter-load, malformed)",
            ["reason"],
            registry=registry,
        )
