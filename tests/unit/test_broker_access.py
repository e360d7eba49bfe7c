"""TLS and SASL: what the settings become, and that no Kafka client is made without them."""

from __future__ import annotations

import ast
import ssl
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from profiles.broker_access import security_options
from profiles.errors import SettingsError
from profiles.settings.kafka import BrokerSettings

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
CLIENTS = {
    "AIOKafkaConsumer",
    "AIOKafkaProducer",
    "AIOKafkaAdminClient",
    "KafkaConsumer",
    "KafkaProducer",
}
SASL = BrokerSettings(security="SASL_SSL", username="worker", password=SecretStr("secret"))


def test_tls_trusts_the_systems_authorities_and_checks_the_name() -> None:
    options = security_options(SASL)
    context = options["ssl_context"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert options["security_protocol"] == "SASL_SSL"
    assert options["sasl_plain_password"] == "secret"


def test_the_name_is_not_compared_when_told_so_but_the_certificate_still_is() -> None:
    context = security_options(SASL.model_copy(update={"check_hostname": False}))["ssl_context"]
    assert not context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("missing", [{"username": ""}, {"password": None}])
def test_sasl_without_a_name_or_a_password_is_refused(missing: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=r"broker\.username and broker\.password"):
        BrokerSettings.model_validate({**SASL.model_dump(), **missing})


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    odd = tmp_path / "odd.pem"
    odd.write_text("no certificate")
    for name in ("ca_file", "cert_file"):
        with pytest.raises(SettingsError, match=r"odd\.pem"):
            security_options(SASL.model_copy(update={name: odd}))


def test_a_password_is_in_no_printed_form() -> None:
    assert "secret" not in repr(SASL)
    assert "secret" not in str(SASL.model_dump())


def _clients(path: Path) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in CLIENTS
    ]


def test_every_kafka_client_of_the_product_says_who_it_is() -> None:
    found = [
        (path, call)
        for folder in ("stream", "learner")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "demo" not in path.parts  # whose broker is its own, on loopback
        for call in _clients(path)
    ]
    assert len(found) > 5, "the search itself is broken"
    without = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path, call in found
        if not any(
            keyword.arg is None and "security_options" in ast.unparse(keyword.value)
            for keyword in call.keywords
        )
    ]
    assert without == []
