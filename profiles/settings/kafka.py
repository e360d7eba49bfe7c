"""Where Kafka is, and how topics are named and cut."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, Field, SecretStr, model_validator

from profiles.settings.base import FROZEN


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
