"""What goes into a learning round and what comes out: values only, no arithmetic."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from learner.catalogue import Catalogue
from learner.checkpoint import Seal, Unseal, as_it_is
from learner.language import LanguageModel
from learner.sampling import Segment
from learner.team import Team
from profiles.head import Head
from profiles.layers import Floats
from profiles.release import ItemTable

NoisySteps = tuple[float, float, int]
"""Noise multiplier, chance of a user to be drawn, and how often, as `PrivacySpent.steps`."""


class RoundCancelled(Exception):
    """The caller asked to stop; the checkpoint holds what was done.  Not an error."""


@dataclass(frozen=True, slots=True)
class Parent:
    """What a round starts from.  `is_trained` is false for a bootstrap release."""

    head: Head
    items: ItemTable
    adapter: Path | None
    is_trained: bool


@dataclass(frozen=True, slots=True)
class RoundData:
    """What a round learns from.

    `counts` (N,) are the events behind each catalogue item, this round's included; `text` (N, T)
    are the vectors of the parent's adapter as far as the caller has them (NaN rows are read).
    """

    catalogue: Catalogue
    fresh: Sequence[Segment]
    past: Sequence[Segment]
    validation: Sequence[Segment]
    counts: Floats
    text: Floats | None = None


@dataclass(frozen=True, slots=True)
class Hooks:
    """How the caller watches and stops a round.

    `progress(stage, done, of, loss)` after every step and slice of texts; `figures(stage, step,
    named)` after every step (loss and its parts, learning rate, gradient norm) and every
    validation (`validation_*`).  What either raises ends the round: that is how a search prunes.
    `team`: the processes that train it together, if there are several.  `seal` and `unseal`: of
    the checkpoint's bytes, where it is encrypted.  `entropy`: a number that nobody can guess, for
    the noise of a private round; whoever knows it can take the noise away again.
    """

    progress: Callable[[str, int, int, float], None] = lambda stage, done, of, loss: None
    is_cancelled: Callable[[], bool] = lambda: False
    checkpoint: Path | None = None
    identity: str = ""
    clock: Callable[[], float] = time.monotonic
    figures: Callable[[str, int, Mapping[str, float]], None] = lambda stage, step, named: None
    team: Team | None = None
    seal: Seal = as_it_is
    unseal: Unseal = as_it_is
    entropy: Callable[[], int] = lambda: secrets.randbits(63)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a round made.  `text` and `text_before` (N, T): the catalogue read by the new adapter
    and by the parent's;  `language` holds the adapter; `examples` the events predicted in
    training, each time they were; `seconds` the time of each stage; `private_steps` what a private
    round spent."""

    head: Head
    items: ItemTable
    text: Floats
    text_before: Floats
    language: LanguageModel
    steps: int
    examples: int
    validation_loss: float
    validation_ndcg: float
    start_loss: float
    seconds: dict[str, float] = field(default_factory=dict)
    private_steps: tuple[NoisySteps, ...] = ()
