"""Which weights of the language model learn: LoRA, AdaLoRA, IA3, or the model's own.

    lora      low-rank matrices beside some linear layers (Hu et al. 2021)
    adalora   the same with a rank budget that moves to the layers that need it (Zhang et al. 2023)
    ia3       a factor on each channel of some layers (Liu et al. 2022)
    full      the weights themselves; a release then holds every one that changed

`model.tuned_layers` = n keeps all but the top n layers of the base as they are.  Which linear
layers are meant is PEFT's choice for the architecture unless `model.lora_targets` names them.
Whatever the method, a new adapter reads texts exactly as the base does.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from profiles.errors import ModelError
from profiles.settings.learning import ModelSettings

WARM_UP, COOL_DOWN = 0.2, 0.2
"""Shares of a round's language steps before AdaLoRA's budget shrinks and after it is settled."""
EXTRA_RANK = 1.5
"""AdaLoRA begins with so much more rank than it ends with, as its authors do (12 to 8)."""
ORTHOGONALITY = 0.5
_LAYER = re.compile(r"(?:^|\.)(\d+)\.")


# Any: transformers' models and PEFT's wrappers are untyped.
def make_trainable(model: Any, settings: ModelSettings, steps: int) -> Any:
    """The base with new trainable weights.  `steps`: language steps of a round.

    Raises: ModelError, or what PEFT raises for targets that the base does not have.
    """
    if settings.peft_method == "full":
        return unfreeze(model, settings)
    from peft import get_peft_model

    return get_peft_model(model, _config(model, settings, steps))


def unfreeze(model: Any, settings: ModelSettings) -> Any:
    """Train the model's own weights: all of them, or those of the top layers."""
    top = _first_tuned(model, settings)
    for name, parameter in model.named_parameters():
        layer = layer_of(name)
        parameter.requires_grad_(top == 0 or (layer is not None and layer >= top))
    return model


def layer_of(name: str) -> int | None:
    """The layer that a weight or module belongs to, None for one outside the stack.

    >>> layer_of("encoder.layer.3.attention.self.query"), layer_of("embeddings.word_embeddings")
    (3, None)
    """
    found = _LAYER.search(name)
    return int(found.group(1)) if found else None


def _first_tuned(model: Any, settings: ModelSettings) -> int:
    layers = int(model.config.num_hidden_layers)
    if settings.tuned_layers > layers:
        raise ModelError(
            f"model.tuned_layers is {settings.tuned_layers}, but {settings.base!r} has {layers}"
        )
    return layers - settings.tuned_layers if settings.tuned_layers else 0


def _config(model: Any, settings: ModelSettings, steps: int) -> Any:
    from peft import AdaLoraConfig, IA3Config, LoraConfig
    from peft import utils as peft_utils
    from transformers.pytorch_utils import Conv1D

    family, method = model.config.model_type, settings.peft_method.upper()
    known: Mapping[str, list[str]] = getattr(
        peft_utils, f"TRANSFORMERS_MODELS_TO_{method}_TARGET_MODULES_MAPPING"
    )
    targets = list(settings.lora_targets) or known.get(family, [])
    if not targets:
        raise ModelError(
            f"{settings.base!r} is a {family!r}, for which there is no usual choice of layers to "
            "adapt; name its linear layers in model.lora_targets"
        )
    named = [
        name
        for name, _ in model.named_modules()
        if any(name == target or name.endswith(f".{target}") for target in targets)
    ]
    top = _first_tuned(model, settings)
    if top:
        named = [name for name in named if (layer_of(name) or 0) >= top]
    common: dict[str, Any] = {
        "target_modules": named if top else targets,
        "task_type": "FEATURE_EXTRACTION",
        "fan_in_fan_out": any(isinstance(model.get_submodule(name), Conv1D) for name in named),
    }
    if settings.peft_method == "ia3":
        inner = peft_utils.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(family, [])
        common["feedforward_modules"] = [
            name
            for name in common["target_modules"]
            if any(name == part or name.endswith(f".{part}") for part in inner)
        ]
        return IA3Config(**common)
    common |= {"lora_alpha": settings.lora_alpha, "lora_dropout": 0.0, "bias": "none"}
    if settings.peft_method == "lora":
        return LoraConfig(r=settings.lora_rank, **common)
    rank = settings.lora_rank
    common |= {"target_r": rank, "init_r": max(round(rank * EXTRA_RANK), rank + 1)}
    common |= {"orth_reg_weight": ORTHOGONALITY, **budget_steps(steps)}
    return AdaLoraConfig(**common)


def budget_steps(steps: int) -> dict[str, int]:
    """When AdaLoRA's budget shrinks, in steps of a round.

    >>> budget_steps(40)
    {'total_step': 40, 'tinit': 8, 'tfinal': 8}
    """
    steps = max(steps, 1)
    return {"total_step": steps, "tinit": int(steps * WARM_UP), "tfinal": int(steps * COOL_DOWN)}


class RankBudget:
    """AdaLoRA's moving budget over one round; a later round keeps the ranks it was given.

    PEFT holds what it has seen of the gradients outside of any state dict: `tensors` brings it
    into the checkpoint.  The ranks themselves lie in the weights: a direction that was given up
    has a singular value of exactly nought.
    """

    def __init__(self, model: Any, steps: int) -> None:
        self._tuner = model.base_model
        self._config = model.peft_config[model.active_adapter]
        values = {
            name: weight.detach()[:, 0] != 0
            for name, weight in self._tuner.model.named_parameters()
            if "lora_E" in name
        }
        self._is_settled = any(bool(kept.any()) for kept in values.values())
        if self._is_settled:
            self._config.rank_pattern = {name: kept.tolist() for name, kept in values.items()}
        for name, value in budget_steps(steps).items():
            setattr(self._config, name, value)

    def after_step(self, done: int) -> None:
        """Move the budget; `done` language steps of this round lie behind, gradients are there."""
        after_all = self._config.total_step + 1
        self._tuner.update_and_allocate(after_all if self._is_settled else done)

    def penalty(self) -> Tensor:
        """How far the low-rank factors are from orthogonal (Zhang et al. 2023, eq. 4)."""
        terms: list[Tensor] = []
        for name, factor in self._tuner.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                product = factor @ factor.T if "lora_A" in name else factor.T @ factor
                identity = torch.eye(len(product), device=product.device)
                terms.append(torch.linalg.matrix_norm(product - identity))
        penalty: Tensor = self._config.orth_reg_weight * torch.stack(terms).mean()
        return penalty

    @contextlib.contextmanager
    def unshrunk(self) -> Iterator[None]:
        """While saving: whole matrices.  PEFT would cut them by its `rank_pattern`, and warns of
        that pattern when it reads it back."""
        pattern, self._config.rank_pattern = self._config.rank_pattern, None
        try:
            yield
        finally:
            self._config.rank_pattern = pattern

    def tensors(self) -> dict[str, Tensor]:
        allocator = self._tuner.rankallocator
        found = {
            f"{kind}|{name}": tensor
            for kind in ("ipt", "exp_avg_ipt", "exp_avg_unc")
            for name, tensor in getattr(allocator, kind).items()
        }
        pattern = self._config.rank_pattern or {}
        return found | {f"kept|{name}": torch.tensor(kept) for name, kept in pattern.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        pattern: dict[str, list[bool]] = {}
        for full_name, tensor in tensors.items():
            kind, name = full_name.split("|")
            if kind == "kept":
                pattern[name] = tensor.tolist()
            else:
                getattr(self._tuner.rankallocator, kind)[name] = tensor
        if pattern:
            self._config.rank_pattern = pattern
