"""How weights move: one optimiser for the head, one for the language model, on one schedule.

Optimisers come from `torch.optim`, schedules from transformers, both by name.  The learning rate
of a step is a function of the step's number alone, so that a resumed round needs no scheduler
state; what an optimiser remembers goes through `tensors` and `restore`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from learner.checkpoint import optimiser_tensors, restore_optimiser
from learner.model import HeadModel
from profiles.settings.learning import LearnerSettings

DECAYED = ("text_weight", "vector_weight", "action", "mix_weight", "out_weight", "ff_in", "ff_out")
FROZEN = ("id_gate", "new_item_gain")
"""Not trained: the gradient of the first is nil where it matters and it could cross zero; the
second is a setting (`learner.new_item_gain`)."""
WARM_UP_SHARE = 0.05
FLOOR = 0.1
"""Share of the learning rate that the default schedule ends on."""

# Any: torch types every optimiser's options differently.
OPTIMISERS: Mapping[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "adamw": (torch.optim.AdamW, {"betas": (0.9, 0.99)}),
    "nadam": (torch.optim.NAdam, {"betas": (0.9, 0.99), "decoupled_weight_decay": True}),
    "radam": (torch.optim.RAdam, {"betas": (0.9, 0.99), "decoupled_weight_decay": True}),
    "adafactor": (torch.optim.Adafactor, {}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
}
"""What `learner.optimiser` may name; second moments forget in 100 steps, as rounds are short."""


class Optimisers:
    """Steps head and, in the language stage, the language model's trainable weights.

    Args:
        extra: weights of the objective itself, trained at the head's rate without decay.
        rate: factor on both learning rates.
    """

    def __init__(
        self,
        model: HeadModel,
        extra: Iterable[Tensor],
        language: Mapping[str, Tensor],
        settings: LearnerSettings,
        rate: float,
        total_steps: int,
    ) -> None:
        make, options = OPTIMISERS[settings.optimiser]
        self._settings, self._rate = settings, rate
        self._factor = schedule(settings.schedule, total_steps)
        self._extra = list(extra)
        self.head = make(head_groups(model, self._extra, settings), **options)
        self._model, self._language_weights = model, list(language.values())
        # A method may train nothing of the language model.
        self._language = (
            make(self._language_weights, weight_decay=0.0, **options)  # type: ignore[call-arg]
            if self._language_weights
            else None
        )

    def step(self, loss: Tensor, step: int, *, with_language: bool) -> dict[str, float]:
        """Go down the gradient of `loss`.

        Returns: learning rate of the head and norm of its gradient, for whoever watches.
        """
        factor = self._rate * self._factor(step)
        self.head.zero_grad(set_to_none=True)
        head_rate = self.set_head_rate(step)
        if self._language is not None:
            self._language.zero_grad(set_to_none=True)
            for group in self._language.param_groups:
                group["lr"] = self._settings.lora_lr * factor
        loss.backward()  # type: ignore[no-untyped-call]
        clip = self._settings.clip_norm
        norm = torch.nn.utils.clip_grad_norm_([*self._model.parameters(), *self._extra], clip)
        self.head.step()
        if with_language and self._language is not None:
            torch.nn.utils.clip_grad_norm_(self._language_weights, clip)
            self._language.step()
        return {"head_lr": head_rate, "gradient_norm": float(norm)}

    def set_head_rate(self, step: int) -> float:
        """Set the learning rate that the head has at a step, and return it."""
        rate = self._settings.head_lr * self._rate * self._factor(step)
        for group in self.head.param_groups:
            group["lr"] = rate
        return rate

    def tensors(self) -> dict[str, Tensor]:
        """What both optimisers remember."""
        found = optimiser_tensors("head", self.head)
        if self._language is not None:
            found |= optimiser_tensors("language", self._language)
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put it back."""
        restore_optimiser("head", self.head, tensors)
        if self._language is not None:
            restore_optimiser("language", self._language, tensors)


def head_groups(
    model: HeadModel, extra: Iterable[Tensor], settings: LearnerSettings
) -> list[dict[str, object]]:
    """Parameter groups: matrices and collaborative parts decay, the rest does not."""
    decayed: list[Tensor] = [model.ids]
    free: list[Tensor] = [model.bias, *extra]
    for name, parameter in model.arrays.items():
        parameter.requires_grad_(name not in FROZEN)
        if name not in FROZEN:
            (decayed if name in DECAYED else free).append(parameter)
    return [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


def schedule(name: str, total_steps: int) -> Callable[[int], float]:
    """Share of the learning rate at each step, 0 being the first; warm-up is 5% of the steps.

    Source: `transformers.get_scheduler`, under its names.

    >>> share = schedule("cosine_with_min_lr", 100)
    >>> [round(share(step), 2) for step in (0, 4, 99)]
    [0.2, 1.0, 0.1]
    """
    from transformers import get_scheduler

    warm_up = max(int(total_steps * WARM_UP_SHARE), 1)
    options: dict[str, Any] = {}
    if name in ("cosine_with_min_lr", "cosine_warmup_with_min_lr"):
        options = {"min_lr_rate": FLOOR}
    elif name == "warmup_stable_decay":
        options = {"num_decay_steps": max(total_steps // 5, 1), "min_lr_ratio": FLOOR}
    nothing = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    made: Any = get_scheduler(name, nothing, warm_up, total_steps, options or None)
    share: Callable[[int], float] = made.lr_lambdas[0]
    # Theirs begins at 0, where a step would do nothing.
    return lambda step: float(share(min(step + 1, total_steps)))
