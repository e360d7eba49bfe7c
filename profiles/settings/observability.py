"""What is told of a process besides logs and metrics."""

from __future__ import annotations

from pydantic import BaseModel, Field

from profiles.settings.base import FROZEN


class ObservabilitySettings(BaseModel):
    """Traces by OpenTelemetry; off unless an endpoint is named (docs/production.md)."""

    model_config = FROZEN

    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^\s/]+",
        description="where spans go, OTLP over HTTP: http://collector:4318/v1/traces; needs the "
        "extra driftline[traces]",
    )
    trace_share: float = Field(
        0.1, ge=0, le=1, description="of rounds and requests that no trace came with"
    )
