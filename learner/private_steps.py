"""Differentially private steps of the head, by opacus: how much any one user can change a release.

The unit is a user with everything of hers that a round learns from.  In each step every user is
drawn by chance (Poisson sampling), each drawn user gives the gradient of one window of hers, that
gradient is cut to `learner.dp_clip`, and Gaussian noise of `dp_noise` times that length is added to
the sum (DP-SGD, Abadi et al. 2016).  A gradient is taken user by user on a batch of one, so that
whatever the loss does within a batch, it mixes no two users; their own losses are what is bounded.
The numbers of events behind items, which a release holds, too, get noise in the same way.

What surprised us: opacus' own per-sample gradients know neither our recurrence nor a table that all
samples share, so they are computed here and handed to its optimiser and its accountant.  Noise
comes from torch's generator, which is good enough for figures and no cryptographic one.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learner.catalogue import Catalogue
from learner.round_types import NoisySteps
from learner.sampling import Segment, Windows
from profiles.errors import SettingsError
from profiles.layers import Floats
from profiles.manifest import Manifest, PrivacySpent
from profiles.settings.learning import LearnerSettings


def require_private(settings: LearnerSettings, parent: Manifest) -> None:
    """Whether a private round may begin on this parent.

    Raises: SettingsError when opacus is missing, or the parent's lineage learned without noise:
    what it knows of users would stand in the new release, whatever epsilon said.
    """
    if not settings.dp_noise:
        return
    if importlib.util.find_spec("opacus") is None:
        raise SettingsError(
            f"learner.dp_noise is {settings.dp_noise}, but the library 'opacus' is not installed; "
            "add it with: pip install 'driftline[private]'"
        )
    if parent.trained_events and not isinstance(parent.privacy, PrivacySpent):
        raise SettingsError(
            f"learner.dp_noise is {settings.dp_noise}, but release {parent.release_id} or one that "
            "it comes from learned without noise; promote the first release of this prefix "
            "(`driftline releases list`), or set learner.dp_noise=0"
        )


def spent(parent: Manifest, steps: Sequence[NoisySteps], delta: float) -> PrivacySpent:
    """What the parent's lineage and these steps come to together.

    Epsilons are not added up: the accountant composes all steps (Renyi, Mironov 2017).
    """
    before = parent.privacy.steps if isinstance(parent.privacy, PrivacySpent) else []
    together: dict[tuple[float, float], int] = {}
    for noise, share, times in (*before, *steps):
        together[noise, share] = together.get((noise, share), 0) + times
    merged = [(noise, share, times) for (noise, share), times in together.items()]
    return PrivacySpent(epsilon(merged, delta), delta, merged)


def epsilon(steps: Sequence[NoisySteps], delta: float) -> float:
    """Of all these steps, by opacus' Renyi accountant: an upper bound."""
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = list(steps)
    with warnings.catch_warnings():
        # At very little or very much noise it warns that a wider search might find a lower bound.
        warnings.simplefilter("ignore", UserWarning)
        return float(accountant.get_epsilon(delta=delta))


class PrivateSteps:
    """The noisy steps of one round on one optimiser.

    Args:
        users: how many there are to learn from; their number counts as public.
        entropy: seeds noise and draws; whoever knows it can take the noise away.
    """

    def __init__(
        self,
        optimiser: torch.optim.Optimizer,
        settings: LearnerSettings,
        users: int,
        entropy: int,
        device: str,
    ) -> None:
        from opacus.optimizers import DPOptimizer

        self._users, self._noise = users, settings.dp_noise
        self.share = min(settings.batch_users / users, 1.0)
        self._rng = np.random.default_rng(entropy)
        generator = torch.Generator(device).manual_seed(int(self._rng.integers(2**62)))
        # Any: opacus types its optimiser's parameters as nothing in particular.
        self._optimiser: Any = DPOptimizer(
            optimiser,
            noise_multiplier=settings.dp_noise,
            max_grad_norm=settings.dp_clip,
            expected_batch_size=self.share * users,
            generator=generator,
        )
        self._weights: list[Tensor] = list(self._optimiser.params)

    def draw(self) -> list[int]:
        """Users of one step, each drawn by chance: none, at times."""
        found: list[int] = np.flatnonzero(self._rng.random(self._users) < self.share).tolist()
        return found

    def pick(self, windows: Sequence[int]) -> int:
        """One of a drawn user's windows."""
        return int(self._rng.choice(windows))

    def add(self, loss: Tensor) -> None:
        """One user's loss: its gradient is cut and added to those of the others at once."""
        found = torch.autograd.grad(loss, self._weights, allow_unused=True)
        for weight, gradient in zip(self._weights, found, strict=True):
            own = torch.zeros_like(weight) if gradient is None else gradient
            weight.grad_sample = own[None]  # type: ignore[attr-defined]
        self._optimiser.signal_skip_step(True)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Add the noise and go down; also where nobody was drawn."""
        for weight in self._weights:
            weight.grad_sample = weight.new_zeros((0, *weight.shape))  # type: ignore[attr-defined]
        self._optimiser.signal_skip_step(False)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)

    def spent(self, steps: int) -> tuple[NoisySteps, ...]:
        """So many steps, and the counts of `noisy_counts`."""
        return (self._noise, self.share, steps), (self._noise, 1.0, 1)


def windows_by_user(windows: Windows) -> list[list[int]]:
    """Rows of each user's windows that have a target."""
    rows = np.flatnonzero(windows.weights.any(axis=1))
    users, place = np.unique(windows.users[rows], return_inverse=True)
    found: list[list[int]] = [[] for _ in users]
    for row, user in zip(rows.tolist(), place.tolist(), strict=True):
        found[user].append(row)
    return found


def noisy_counts(
    before: Floats,
    training: Sequence[Segment],
    catalogue: Catalogue,
    settings: LearnerSettings,
    entropy: int,
) -> Floats:
    """Events behind each item after a private round.  Shapes: before (N,) -> (N,), none below 0.

    A user's new counts are cut to the length that one window of different items has.
    """
    longest = math.sqrt(settings.sequence_length)
    counts = before.astype(np.float64)
    for own in _counts_of_users(training, catalogue):
        counts += own * min(1.0, longest / max(float(np.linalg.norm(own)), 1e-9))
    rng = np.random.default_rng(entropy)
    counts += rng.normal(0.0, settings.dp_noise * longest, len(counts))
    return np.maximum(counts, 0.0).astype(np.float32)


def _counts_of_users(training: Sequence[Segment], catalogue: Catalogue) -> Iterator[Floats]:
    by_user: dict[int, list[Segment]] = {}
    for segment in training:
        by_user.setdefault(segment.user, []).append(segment)
    for segments in by_user.values():
        rows = np.concatenate([catalogue.rows(s.items[s.first_target :]) for s in segments])
        yield np.bincount(rows[rows >= 0], minlength=len(catalogue)).astype(np.float32)
