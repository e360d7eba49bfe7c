"""What a deployment's settings make of a release: one answer for whoever opens releases."""

from __future__ import annotations

from profiles.config import Settings
from profiles.encoder import base_sha256
from profiles.modalities import Modalities
from profiles.release import Expected


def expected_by(settings: Settings) -> Expected:
    """For `profiles.release.open_release`.  Raises: ModelError when the base cannot be read."""
    model = settings.model
    return Expected(
        base_sha256(model.base),
        model.dim,
        model.layers,
        model.lora_rank,
        tuple(sorted(settings.actions)),
        model.pooling,
        model.max_tokens,
        model.peft_method,
        Modalities.of(model.vectors).widths,
    )
