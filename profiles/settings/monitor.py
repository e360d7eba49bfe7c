"""Opinion monitoring: what is counted, over how long, and when it is a surge."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field, model_validator

from profiles.settings.base import FROZEN


class MonitorSettings(BaseModel):
    """Opinion monitoring (`driftline monitor`, docs/applications/finance.md)."""

    model_config = FROZEN

    group: str = Field("driftline-monitor", description="commits how far alerts have been decided")
    entity: str = Field("entity", description="attribute that names what an item is about")
    entities: int = Field(
        10_000, ge=1, description="most entities that are watched; items of others are counted"
    )
    min_labels: int = Field(
        50, ge=10, description="labels before a head of topics is trained, or seed texts give way"
    )
    retrain_labels: int = Field(
        100, ge=1, description="new labels after which heads are trained anew without a swap"
    )
    bucket_s: float = Field(300.0, ge=1, description="what is counted together")
    window_s: float = Field(3600.0, ge=1, description="what an alert tells of, and is decided on")
    late_s: float = Field(60.0, ge=0, description="how long a bucket waits for late items")
    season_s: float = Field(
        86_400.0, ge=3600, description="a cycle of hours with factors of their own: day or week"
    )
    memory_s: float = Field(
        604_800.0, gt=0, description="what is usual is a mean that forgets a third in so long"
    )
    history_s: float = Field(
        1_209_600.0, ge=0, description="items so old are still read again at a start"
    )
    warm_up_s: float = Field(
        86_400.0, ge=0, description="an entity is watched for so long before an alert on it"
    )
    min_items: int = Field(5, ge=1, description="least items in the window of an alert")
    slack: float = Field(
        0.1, ge=0, description="standard deviations above the usual that a bucket may be for ever"
    )
    change_at: float = Field(
        2.0, gt=0, description="sum of what is above that, at which something has changed"
    )
    raise_at: float = Field(
        3.5, gt=0, description="standard deviations above the usual at which a window is a surge"
    )
    recover_at: float = Field(1.5, description="below so many a window is calm")
    calm_s: float = Field(1800.0, ge=0, description="calm for so long: the alert is over")
    longest_s: float = Field(
        172_800.0, gt=0, le=1_209_600, description="an alert that stands so long is the usual now"
    )

    @property
    def window_buckets(self) -> int:
        """Buckets in a window."""
        return max(1, round(self.window_s / self.bucket_s))

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.recover_at >= self.raise_at:
            raise ValueError(
                f"recover_at={self.recover_at:g} must lie below raise_at={self.raise_at:g}, or an "
                "alert would end as it begins"
            )
        if self.window_s < self.bucket_s:
            raise ValueError(
                f"window_s={self.window_s:g} is shorter than bucket_s={self.bucket_s:g}"
            )
        return self
