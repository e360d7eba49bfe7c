"""What a profile holds, how the workers serve, and where state lives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from profiles.settings.base import FROZEN


class ProfileSettings(BaseModel):
    """How much of a user is kept."""

    model_config = FROZEN

    history: int = Field(75, ge=4, le=1000, description="events kept for a rebuild at a swap")
    recent_ids: int = Field(16, ge=1, le=256, description="event ids kept to spot duplicates")
    texts: int = Field(
        8, ge=0, le=100, description="words of events kept for a rebuild, so many texts a user"
    )
    text_chars: int = Field(
        200, ge=1, le=2000, description="characters of each text that are read and kept"
    )
    seen_bytes: int = Field(256, ge=32, le=8192, description="Bloom filter of seen items")
    precision: Literal["float32", "float16"] = Field(
        "float16", description="of the vectors in a stored profile; the arithmetic is float32"
    )


DEFAULT_ACTIONS: Mapping[str, float] = {
    "view": 0.3,
    "click": 0.5,
    "watch": 0.7,
    "like": 1.0,
    "share": 1.0,
    "cart": 1.0,
    "purchase": 1.5,
    "rate": 1.0,
    "dislike": -1.0,
    "hide": -1.0,
}


class ServingSettings(BaseModel):
    """How the workers behave."""

    model_config = FROZEN

    group: str = "driftline-workers"
    k: int = Field(10, ge=1, le=1000, description="items in a recommendation")
    user_interval_s: float = Field(1.0, ge=0, description="least time between two outputs")
    encoder_socket: Path | None = Field(
        None,
        description="Unix socket of a `driftline encoder` that reads texts for several domains of "
        "this machine; none: a child process of the worker's own",
    )
    backlog_records: int = Field(
        5_000, ge=0, description="further behind than this, catching up goes before recommending"
    )
    backlog_hold_s: float = Field(
        30.0, ge=0, description="longest that recommendations are held while catching up"
    )
    max_ahead_s: float = Field(300.0, ge=0, description="how far ahead an event may be dated")
    max_message_bytes: int = Field(65_536, ge=256, description="larger messages are dead letters")
    user_events_per_minute: int = Field(
        0,
        ge=0,
        le=60_000_000,
        description="most events of one user that count, all at once or over a minute; the others "
        "are dropped and counted; 0: no limit, which an import needs",
    )
    chunk_records: int = Field(
        4000, ge=1, le=100_000, description="events applied in one batch, at most"
    )
    catalogue_wait_s: float = Field(
        2.0, ge=0, description="how long an event of an unknown item waits for the item"
    )
    prequential_share: float = Field(
        0.05, ge=0, le=1, description="share of events ranked before they are applied"
    )
    exact_items: int = Field(
        100_000, ge=1, description="larger catalogues are ranked through an index of candidates"
    )
    recall_share: float = Field(
        0.001, ge=0, le=1, description="share of recommendations whose candidates are checked"
    )
    reasons: int = Field(2, ge=0, le=10, description="reasons given with each item")
    exclude_seen: bool = True
    trend_weight: float = Field(
        1.0,
        ge=0,
        le=2,
        description="how far scores follow what users turn to lately beyond what the release "
        "expects; 0: not at all",
    )
    trend_half_life_s: float = Field(
        604_800.0, gt=0, description="age at which an event of a trend weighs half"
    )
    trend_prior_events: float = Field(
        3000.0, ge=0, description="recent events that the release's own view of items stands for"
    )
    trend_known_most: float = Field(
        0.1,
        ge=0,
        description="most that a trend lifts the score of an item which the release knows; more "
        "where known items may take off, and crowds are kept out",
    )
    hand_over_below: float = Field(
        0.0,
        ge=0,
        le=1,
        description="recommendations say `hand_over` when they are less sure of their first item "
        "than this; 0: they say nothing of it (docs/applications/support.md)",
    )
    rules: Path | None = Field(
        None,
        description="TOML file of business rules, read again when it changes",
    )
    exploration: Literal["off", "epsilon", "boltzmann", "uncertain"] = Field(
        "off", description="show, now and then, what is not thought best (docs/rollout.md)"
    )
    exploration_epsilon: float = Field(
        0.1, gt=0, le=1, description="epsilon, uncertain: how often a slot is filled at random"
    )
    exploration_temperature: float = Field(
        0.5, gt=0, description="boltzmann: difference of scores that makes an item e times likelier"
    )
    exploration_pool: int = Field(
        50, ge=1, le=1000, description="best-ranked items that exploration chooses from"
    )
    exposure_window_s: float = Field(
        3600.0, gt=0, description="sliding window of the exposure figures and of the cap"
    )
    exposure_cap: float = Field(
        1.0,
        gt=0,
        le=1,
        description="most of a worker's recommendations in the window that one item may be in",
    )
    exposure_tags: tuple[str, ...] = Field(
        (), max_length=50, description="groups of items whose exposure is told, by tag"
    )
    sweep_users: int = Field(32, ge=1, description="profiles rebuilt in one slice of the sweep")
    commit_interval_s: float = Field(1.0, gt=0)
    stall_after_s: float = Field(60.0, gt=0, description="lag and no commit for so long: exit")
    session_timeout_s: float = Field(
        7.0, ge=6, description="a worker not heard of for so long loses its partitions"
    )


class StoreSettings(BaseModel):
    """Where state lives on this machine."""

    model_config = FROZEN

    directory: Path = Path("data")
    releases: str = Field("data/releases", description="directory or fsspec URL")
    sync_writes: bool = Field(False, description="fsync every batch; the changelog makes it moot")
    memory_bytes: int = Field(
        268_435_456,
        ge=16_777_216,
        description="what RocksDB may hold in memory for all partitions of a worker: half for what "
        "is not on disk yet, half for what was read",
    )
    keep_releases: int = Field(
        50, ge=1, description="newest releases kept; those in use or to roll back to always are"
    )
    keep_quarantined: int = Field(
        1, ge=0, description="damaged or outdated stores kept of each partition"
    )
