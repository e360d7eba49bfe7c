"""A broker as in production: TLS, SCRAM, and an authorizer that denies what is not granted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ResourcePattern,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from pydantic import SecretStr

from profiles.access_control import ROLES, Role, grants
from profiles.config import Settings
from profiles.settings.kafka import BrokerSettings
from stream.broker import EmbeddedKafka
from tests.certificates import Authority

SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
OPERATIONS = {
    "Read": ACLOperation.READ,
    "Write": ACLOperation.WRITE,
    "Create": ACLOperation.CREATE,
    "Describe": ACLOperation.DESCRIBE,
    "DescribeConfigs": ACLOperation.DESCRIBE_CONFIGS,
}
KINDS = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP}


@dataclass(frozen=True, slots=True)
class Secured:
    """The broker and how to reach it.  Each role is a user of its own name."""

    kafka: EmbeddedKafka
    ca_file: Path

    def access(self, role: str, **changes: object) -> BrokerSettings:
        """What a process of this role is set to."""
        as_role = BrokerSettings(
            bootstrap=self.kafka.bootstrap,
            security="SASL_SSL",
            username=role,
            password=SecretStr(f"{role}-secret"),
            ca_file=self.ca_file,
        )
        return as_role.model_copy(update=changes)

    def environment(self, role: str) -> dict[str, str]:
        """The same for a child process."""
        return {
            "DRIFTLINE_BROKER__BOOTSTRAP": self.kafka.bootstrap,
            "DRIFTLINE_BROKER__SECURITY": "SASL_SSL",
            "DRIFTLINE_BROKER__USERNAME": role,
            "DRIFTLINE_BROKER__PASSWORD": f"{role}-secret",
            "DRIFTLINE_BROKER__CA_FILE": str(self.ca_file),
        }

    def grant(self, settings: Settings) -> None:
        """Give every role what `profiles.access_control` lists, and nothing else."""
        rules = [
            ACL(
                f"User:{role}",
                "*",
                OPERATIONS[grant.operation],
                ACLPermissionType.ALLOW,
                ResourcePattern(KINDS[grant.kind], grant.name),
            )
            for role in ROLES
            for grant in grants(role, settings)
        ]
        with _administrator(self.kafka) as admin:
            assert admin.create_acls(rules)["failed"] == []

    def add_users(self, *roles: Role) -> None:
        with _administrator(self.kafka) as admin:
            admin.alter_user_scram_credentials(
                [
                    UserScramCredentialUpsertion(
                        role, ScramMechanism.SCRAM_SHA_512, f"{role}-secret".encode()
                    )
                    for role in roles
                ]
            )


@contextmanager
def secured_kafka(directory: Path) -> Iterator[Secured]:
    """Started, with the users of all roles and no grants."""
    authority = Authority(directory)
    client = "listener.name.client"
    kafka = EmbeddedKafka(
        client_protocol="SASL_SSL",
        server_properties={
            f"{client}.ssl.keystore.type": "PEM",
            f"{client}.ssl.keystore.location": str(authority.chain("broker")),
            f"{client}.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            f"{client}.scram-sha-512.sasl.jaas.config": SCRAM,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            # Who comes by the brokers' own listener has no name: brokers, and this test.
            "super.users": "User:ANONYMOUS",
        },
    )
    with kafka:
        made = Secured(kafka, authority.file)
        made.add_users(*ROLES)
        yield made


@contextmanager
def _administrator(kafka: EmbeddedKafka) -> Iterator[KafkaAdminClient]:
    admin = KafkaAdminClient(bootstrap_servers=kafka.internal_bootstrap)
    try:
        yield admin
    finally:
        admin.close()
