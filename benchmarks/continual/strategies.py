"""What is compared: ways to go on learning once a base has been learned.

All start from the same base release of a seed and run the learner's own round code; a strategy is
a set of changed settings, and whether it learns from fresh events, from everything, or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Mode = Literal["none", "rounds", "retrain"]


@dataclass(frozen=True, slots=True)
class Strategy:
    """`learner`: settings of the section `learner` that differ from the product's defaults;
    `gated`: whether a release must pass the product's gate to serve."""

    name: str
    words: str
    mode: Mode = "rounds"
    learner: dict[str, Any] = field(default_factory=dict)  # Any: values of any setting
    gated: bool = False


NO_ANCHOR = {"proximal": 0.0, "distill": 0.0}

STRATEGIES = (
    Strategy("frozen", "the base, never trained again", mode="none"),
    Strategy(
        "naive",
        "fine-tuning on the fresh block alone, none of the product's devices: no replay, no pull "
        "to the parent, no distillation, the first round's learning rate",
        learner={"replay_share": 0.0, "later_lr_factor": 1.0, **NO_ANCHOR},
    ),
    Strategy(
        "gentle",
        "the same at the product's lowered rate for later rounds",
        learner={"replay_share": 0.0, **NO_ANCHOR},
    ),
    Strategy(
        "reservoir",
        "fine-tuning on fresh and replayed events, drawn uniformly from all of the past",
        learner={"replay_policy": "reservoir", **NO_ANCHOR},
    ),
    Strategy(
        "herding",
        "replay of a herded memory, with distillation of the parent's scores: the default, but "
        "whatever a round makes serves",
        learner={"replay_policy": "herding"},
    ),
    Strategy("default", "the product as it is shipped, its gate included", gated=True),
    Strategy(
        "full",
        "training from scratch on everything seen, after every block",
        mode="retrain",
        learner={"replay_share": 0.0},
    ),
)


def strategy_named(name: str) -> Strategy:
    """Raises: KeyError for an unknown name."""
    return {strategy.name: strategy for strategy in STRATEGIES}[name]
