"""What a few training steps came to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Steps:
    """`losses` of every step, the untimed first included; the rest is of the timed ones.

    `seconds` by `benchmarks.clocks`; `tokens` that the language model was given, padding included.
    """

    losses: list[float]
    seconds: float
    examples: int
    tokens: int
