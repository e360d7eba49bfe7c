"""Keys, and what listens on HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, Field, SecretStr, model_validator

from profiles.settings.base import FROZEN

BEYOND_LOOPBACK = "beyond loopback only with security.api_token or security.http_client_ca"


class SecuritySettings(BaseModel):
    """Keys, and who may ask the HTTP servers: metrics, API and console have one policy.

    `signing_key` (learner) and `trusted_keys` (workers) are Ed25519, PEM files; certificates and
    their keys are PEM files, too.
    """

    model_config = FROZEN

    signing_key: Path | None = None
    signing_key_password: SecretStr | None = None
    trusted_keys: tuple[Path, ...] = ()
    audit_log: Path | None = Field(
        None, description="file of the audit log; default: audit.jsonl in store.directory"
    )
    api_token: SecretStr | None = Field(
        None, min_length=16, description="bearer token of metrics, HTTP API and console"
    )
    http_cert: Path | None = Field(
        None, description="certificate of the HTTP servers: they then speak TLS only"
    )
    http_key: Path | None = Field(None, description="its key; default: in http_cert")
    http_key_password: SecretStr | None = None
    http_client_ca: Path | None = Field(
        None, description="authority that a client's certificate must be of (mutual TLS)"
    )
    http_requests_per_s: float = Field(
        100.0, ge=0, description="of one client's address, at each HTTP server; 0 without limit"
    )
    http_burst: int = Field(200, ge=1, description="requests that may come at once")

    @model_validator(mode="after")
    def _check_http(self) -> Self:
        if self.http_cert is None and (self.http_key or self.http_client_ca):
            raise ValueError("http_key and http_client_ca need http_cert, the server's own")
        return self


class ApiSettings(BaseModel):
    """The HTTP API and the console (docs/http-api.md).  Port 0 takes a free one."""

    model_config = FROZEN

    host: str = Field("127.0.0.1", description=BEYOND_LOOPBACK)
    port: int = Field(8080, ge=0, le=65_535)
    users: int = Field(
        20_000, ge=1, description="newest profiles and newest recommendations kept in memory"
    )
    max_body_bytes: int = Field(1_048_576, ge=1024, description="of a request")
    answer_timeout_s: float = Field(5.0, gt=0, description="wait for a worker's answer")


class HttpSettings(BaseModel):
    """Metrics and health, loopback unless told otherwise.  Port 0 takes a free one."""

    model_config = FROZEN

    host: str = Field("127.0.0.1", description=BEYOND_LOOPBACK)
    port: int = Field(0, ge=0, le=65_535)
