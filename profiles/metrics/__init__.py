"""Every metric, declared once.  Seconds and bytes; counters end in `_total`; no user, no item.

Each process builds one `WorkerMetrics` or `LearnerMetrics` on its own registry and passes it
down, so that tests can run several side by side and nothing happens at import.  The process's own
(`process_cpu_seconds_total`, `process_resident_memory_bytes`, open files) are prometheus_client's.
"""

from __future__ import annotations

from profiles.metrics.encoder import EncoderMetrics
from profiles.metrics.http import HttpMetrics
from profiles.metrics.learner import LearnerMetrics
from profiles.metrics.monitor import MonitorMetrics
from profiles.metrics.worker import WorkerMetrics

__all__ = ["EncoderMetrics", "HttpMetrics", "LearnerMetrics", "MonitorMetrics", "WorkerMetrics"]
