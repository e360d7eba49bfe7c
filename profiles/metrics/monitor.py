"""What the opinion monitor tells."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Info, ProcessCollector


class MonitorMetrics:
    """What the opinion monitor tells operators."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        ProcessCollector(registry=registry)
        self.ready = Gauge("driftline_monitor_ready", "1 while news are judged", registry=registry)
        self.items = Counter(
            "driftline_monitor_items",
            "Items read (outcome: counted; late, crowded: not counted for their time or one entity "
            "too many; changed, no-entity; or why it is bad)",
            ["outcome"],
            registry=registry,
        )
        self.labels = Counter("driftline_monitor_labels", "Labels read", registry=registry)
        self.labels_refused = Counter(
            "driftline_monitor_labels_refused",
            "Labels that became dead letters",
            ["reason"],
            registry=registry,
        )
        self.heads = Counter(
            "driftline_monitor_heads",
            "Times that heads were trained, at a swap or for new labels",
            registry=registry,
        )
        self.head_quality = Gauge(
            "driftline_monitor_head_quality",
            "Of sentiment, on labels out of fold (figure: macro_f1, calibration_error, loss); NaN "
            "while seed texts are all there is",
            ["figure"],
            registry=registry,
        )
        self.entities = Gauge(
            "driftline_monitor_entities", "Entities that are watched", registry=registry
        )
        self.raised = Gauge("driftline_monitor_raised", "Alerts that stand", registry=registry)
        self.alerts = Counter(
            "driftline_monitor_alerts", "Alerts told (state)", ["state"], registry=registry
        )
        self.releases_refused = Counter(
            "driftline_monitor_releases_refused",
            "Releases that failed a check here",
            ["reason"],
            registry=registry,
        )
        self.release = Info(
            "driftline_monitor_release", "Release that texts are read with", registry=registry
        )
