"""Every setting, in one frozen tree, read once and passed down in parts.

Sources, strongest first: environment (``DRIFTLINE_BROKER__BOOTSTRAP``), keyword arguments, the
TOML file named by ``--config`` or ``DRIFTLINE_CONFIG``, the domain named by ``--domain`` or
``DRIFTLINE_DOMAIN`` (`profiles.domains`), the defaults below.  All bad values are
reported together, each with its name and the remedy.  Nothing is read at import.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableEnvironment

from profiles.domains import laid_over, load_domain
from profiles.errors import SettingsError
from profiles.settings.access import ApiSettings, HttpSettings, SecuritySettings
from profiles.settings.data import DataSettings
from profiles.settings.kafka import BrokerSettings, TopicSettings
from profiles.settings.learning import (
    LearnerSettings,
    ModelSettings,
    RolloutSettings,
    TrackerSettings,
)
from profiles.settings.monitor import MonitorSettings
from profiles.settings.observability import ObservabilitySettings
from profiles.settings.privacy import PrivacySettings
from profiles.settings.serving import (
    DEFAULT_ACTIONS,
    ProfileSettings,
    ServingSettings,
    StoreSettings,
)


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
    data: DataSettings = DataSettings()
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
    monitor: MonitorSettings = MonitorSettings()
    security: SecuritySettings = SecuritySettings()
    privacy: PrivacySettings = PrivacySettings()
    http: HttpSettings = HttpSettings()
    api: ApiSettings = ApiSettings()
    observability: ObservabilitySettings = ObservabilitySettings()
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

    @model_validator(mode="after")
    def _check_hand_over(self) -> Self:
        if self.serving.hand_over_below and not self.learner.judged_conversations:
            raise ValueError(
                f"serving.hand_over_below={self.serving.hand_over_below} needs "
                "learner.judged_conversations, how many people's words and verdicts to learn "
                "confidence from; without it, everything would be handed over"
            )
        return self


MAX_ACTIONS = 64


def load_settings(
    path: Path | None = None, domain: str | None = None, **overrides: Any
) -> Settings:
    """Read the settings once.

    Args:
        path: a TOML file; default the one that ``DRIFTLINE_CONFIG`` names, if it does.
        domain: name or file of a domain; default the one that ``DRIFTLINE_DOMAIN`` names.
        overrides: whole sections, as dictionaries; they lose against the environment.
    Raises: SettingsError that lists every bad value.
    """
    configured = os.environ.get("DRIFTLINE_CONFIG")
    named = path or (Path(configured) if configured else None)
    below = domain or os.environ.get("DRIFTLINE_DOMAIN")
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
    if below:
        values = laid_over(load_domain(below).settings, values)
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
    secret = problem["type"] == "extra_forbidden" or problem["loc"][:1] in (
        ("security",),
        ("privacy",),
    )
    plain = isinstance(problem["input"], str | int | float)
    return f" (got {problem['input']!r})" if plain and not secret else ""
