"""What every HTTP server tells."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter


class HttpMetrics:
    """What every HTTP server tells: metrics and health of worker and learner, API and console."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.refused = Counter(
            "driftline_http_refused",
            "Requests that were not let in (reason: rate, no-token, foreign-host, foreign-origin, "
            "too-large, handshake)",
            ["reason"],
            registry=registry,
        )
