"""Keys, and what listens on HTTP."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field, SecretStr

from profiles.settings.base import FROZEN


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
