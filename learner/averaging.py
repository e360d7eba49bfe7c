"""A running average of the weights: what is judged and released in place of the last step's.

Exponential moving average (Polyak & Juditsky 1992); early on it forgets faster, so that it is not
held back by where training began: decay_t = min(decay, (1 + t) / (10 + t)), as in TensorFlow.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


class Average:
    """Averages named weights over a stage.  With decay 0 it does nothing at all."""

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._steps = 0
        self._held: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """After a step."""
        if not self._decay:
            return
        decay = min(self._decay, (1.0 + self._steps) / (10.0 + self._steps))
        self._steps += 1
        for name, weight in weights.items():
            if name in self._held:
                self._held[name].lerp_(weight.detach().to(self._held[name].dtype), 1.0 - decay)
            else:
                self._held[name] = weight.detach().clone()

    @contextlib.contextmanager
    def applied(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside, the weights are their averages; what was not averaged stays."""
        before = {name: w.detach().clone() for name, w in weights.items() if name in self._held}
        put(weights, self._held)
        try:
            yield
        finally:
            put(weights, before)

    def settle(self, weights: Mapping[str, Tensor]) -> None:
        """End a stage: the weights become their averages, and averaging begins anew."""
        put(weights, self._held)
        self._held, self._steps = {}, 0

    def tensors(self) -> dict[str, Tensor]:
        return {**self._held, "steps": torch.tensor(self._steps)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self._steps = int(tensors["steps"])
        self._held = {name: tensor for name, tensor in tensors.items() if name != "steps"}


@torch.no_grad()
def put(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy values into the weights of their names."""
    for name, value in values.items():
        weights[name].copy_(value)
