"""Can the language model read the catalogue at all?  The share of tokens its tokenizer lacks.

What a tokenizer does not know becomes one and the same token: items of another language then read
alike, and new ones lie all in one place.  Nothing fails by it, so it is measured whenever a
release is made, stands among the release's metrics, and is warned of.  The bundled model knows 244
Chinese characters, and reads three of four as unknown (docs/how-to/another-language.md).
"""

from __future__ import annotations

from profiles.config import Settings
from profiles.logs import get_logger
from profiles.manifest import Manifest
from profiles.metrics import LearnerMetrics

log = get_logger("learner.unknown_tokens")

UNKNOWN_TOKENS = "unknown_tokens"
"""The share's name among a release's metrics."""


def show_unknown(manifest: Manifest, metrics: LearnerMetrics) -> float:
    """Set the gauge to what a release was made with; returns it."""
    share = manifest.metrics.get(UNKNOWN_TOKENS, 0.0)
    metrics.unknown_tokens.set(share)
    return share


def tell_unknown(manifest: Manifest, settings: Settings, metrics: LearnerMetrics) -> None:
    """Set the gauge, and warn if it is more than `learner.unknown_tokens`."""
    share = show_unknown(manifest, metrics)
    if share > settings.learner.unknown_tokens:
        log.warning(
            "the language model cannot read much of the catalogue: its tokenizer does not know the "
            "characters; take a model.base made for the items' language "
            "(docs/how-to/another-language.md)",
            unknown_share=round(share, 3),
            warned_above=settings.learner.unknown_tokens,
            base=settings.model.base,
        )
