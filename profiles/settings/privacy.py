"""Keys that hide who a user is and what she did, and what an erasure means for later events."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, Field, SecretStr, model_validator

from profiles.settings.base import FROZEN


class PrivacySettings(BaseModel):
    """Encryption at rest, pseudonyms and erasure (docs/privacy.md).

    A key file holds a line `VERSION:BASE64` for each version of the key, 32 bytes each; the
    highest version is used for what is new.  `driftline keys` writes it.  The same text may stand
    in a variable instead.
    """

    model_config = FROZEN

    encryption: bool = Field(
        False,
        description="encrypt what is kept of a user: profiles, recommendations, replay buffer",
    )
    master_key_file: Path | None = Field(
        None, description="key file of the master key, which wraps every user's own key"
    )
    master_keys: SecretStr | None = Field(
        None, description="the same as text; better by the environment"
    )
    pseudonym_key_file: Path | None = Field(
        None, description="key file: user ids become pseudonyms at the edge (client, API, import)"
    )
    pseudonym_keys: SecretStr | None = Field(
        None, description="the same as text; better by the environment"
    )
    after_erasure: Literal["accept", "forget", "refuse"] = Field(
        "accept",
        description="events of an erased user: begin a new profile, are dropped, are dead letters "
        "without their contents",
    )

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        if self.encryption and not (self.master_key_file or self.master_keys):
            raise ValueError(
                "encryption needs a master key: set privacy.master_key_file to a file that "
                "`driftline keys create` wrote, or privacy.master_keys"
            )
        for name in ("master", "pseudonym"):
            if getattr(self, f"{name}_key_file") and getattr(self, f"{name}_keys"):
                raise ValueError(f"{name}_key_file and {name}_keys are both set: choose one")
        return self
