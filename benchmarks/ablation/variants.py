"""What is changed against the default, one thing at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Changes = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Variant:
    """`base`: the variant it is compared with, which differs from it by these settings alone."""

    name: str
    base: str
    learner: Changes = field(default_factory=dict)
    model: Changes = field(default_factory=dict)

    @property
    def reads_texts(self) -> bool:
        """Whether the language model takes part."""
        return LANGUAGE in (self.name, self.base)


HEAD = "default, head only"
LANGUAGE = "default, with language steps"

VARIANTS = (
    Variant(HEAD, HEAD),
    Variant("objective = click", HEAD, {"objective": "click"}),
    Variant("objective = multi_task", HEAD, {"objective": "multi_task"}),
    Variant("dislike_weight = 0.1", HEAD, {"dislike_weight": 0.1}),
    Variant("dislike_weight = 1", HEAD, {"dislike_weight": 1.0}),
    Variant("popularity_correction = 0.3", HEAD, {"popularity_correction": 0.3}),
    Variant("popularity_correction = 1", HEAD, {"popularity_correction": 1.0}),
    Variant("adversarial = 0.1", HEAD, {"adversarial": 0.1}),
    Variant("adversarial = 0.3", HEAD, {"adversarial": 0.3}),
    Variant("sequence_augmentation = 0.3", HEAD, {"sequence_augmentation": 0.3}),
    Variant("ema_decay = 0", HEAD, {"ema_decay": 0.0}),
    Variant("optimiser = nadam", HEAD, {"optimiser": "nadam"}),
    Variant("optimiser = radam", HEAD, {"optimiser": "radam"}),
    Variant("optimiser = adafactor", HEAD, {"optimiser": "adafactor"}),
    Variant("optimiser = sgd", HEAD, {"optimiser": "sgd"}),
    Variant("schedule = linear", HEAD, {"schedule": "linear"}),
    Variant("schedule = constant_with_warmup", HEAD, {"schedule": "constant_with_warmup"}),
    Variant(LANGUAGE, LANGUAGE),
    Variant("peft_method = adalora", LANGUAGE, model={"peft_method": "adalora"}),
    Variant("peft_method = ia3", LANGUAGE, model={"peft_method": "ia3"}),
    Variant("peft_method = full", LANGUAGE, model={"peft_method": "full"}),
    Variant("tuned_layers = 2", LANGUAGE, model={"tuned_layers": 2}),
    Variant("lora_rank = 16", LANGUAGE, model={"lora_rank": 16, "lora_alpha": 32}),
    Variant("text_dropout = 0.2", LANGUAGE, {"text_dropout": 0.2}),
)
"""The language variants see the same head settings as the head-only ones, with fewer epochs."""
