"""The compose files keep to the Compose specification, and name what the image and the code have.

The specification's schema comes with the package check-jsonschema, which cannot be imported: it
wants a newer click than Faust allows.  No Docker has run the files here.
"""

from __future__ import annotations

import json
import re
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from profiles.config import Settings, load_settings
from profiles.web_policy import WebPolicy
from tests.docker_settings import commands, image_environment, variables
from tests.monitoring import DOCKER, read

pytestmark = pytest.mark.unit

PRODUCTION = DOCKER / "production.yml"
PROFILES = {
    "core": {"kafka", "topics", "worker", "learner"},
    "monitoring": {"prometheus", "grafana"},
    "demo": {"console", "replay"},
    "opinions": {"monitor"},
}
"""What each adds; core is what has no profile, and so is in all of them."""
FILLED = {
    "API_TOKEN": "0123456789abcdef",
    "KAFKA_BOOTSTRAP": "kafka-1:9093",
    "KAFKA_USERNAME": "driftline",
    "KAFKA_PASSWORD": "secret",
}


def services() -> dict[str, Any]:  # Any: a compose service
    found: dict[str, Any] = read(DOCKER / "compose.yml")["services"]
    return found


def ours() -> dict[str, Any]:  # Any: a compose service
    return {name: service for name, service in services().items() if "build" in service}


def test_compose_runs_commands_that_exist() -> None:
    known = commands()
    assert ("topics", "create") in known
    for name, service in ours().items():
        words = tuple(service["command"])
        assert words in known or words[:1] in known, name
    assert set(ours()) == {"topics", "worker", "learner", "monitor", "console", "replay"}
    entry = re.search(r'^CMD \["(\w+)"\]$', (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    assert entry is not None
    assert (entry.group(1),) in known


def test_compose_sets_settings_that_exist_to_values_that_are_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = set(variables(Settings))
    for name, service in ours().items():
        environment = {**image_environment(), **service["environment"]}
        assert environment.keys() <= known, name
        with monkeypatch.context() as patched:
            for variable, text in environment.items():
                patched.setenv(variable, text)
            settings = load_settings()
        assert settings.http.port != 0, "a health check needs a port that is known"
        assert settings.broker.bootstrap == "kafka:19092"
        WebPolicy.of(settings.security, settings.http.host, "http.host")  # else it would not start


def test_compose_services_that_share_topics_agree_on_their_settings() -> None:
    shared = services()["topics"]["environment"]
    assert all(shared.items() <= service["environment"].items() for service in ours().values())


def test_compose_volumes_and_dependencies_are_declared() -> None:
    compose = read(DOCKER / "compose.yml")
    for name, service in compose["services"].items():
        for dependency in service.get("depends_on", ()):
            assert dependency in compose["services"], name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (DOCKER / source).exists(), volume
    scraped = read(DOCKER / "prometheus" / "prometheus.yml")["scrape_configs"]
    for job in scraped:
        target = job["dns_sd_configs"][0]
        assert set(target["names"]) <= compose["services"].keys()
        assert str(target["port"]) == image_environment()["DRIFTLINE_HTTP__PORT"]
        secret = job["authorization"]["credentials_file"].removeprefix("/run/secrets/")
        assert compose["secrets"][secret] == {"environment": "API_TOKEN"}
        assert secret in compose["services"]["prometheus"]["secrets"]


def test_workers_may_only_read_the_release_store() -> None:
    mounted = [v for v in services()["worker"]["volumes"] if v.startswith("releases:")]
    assert mounted == [f"releases:{image_environment()['DRIFTLINE_STORE__RELEASES']}:ro"]


@pytest.mark.parametrize("name", ["compose.yml", "production.yml"])
def test_the_specification_accepts_the_file(name: str) -> None:
    schema = "check_jsonschema/builtin_schemas/vendor/compose-spec.json"
    found = Path(str(distribution("check-jsonschema").locate_file(schema)))
    jsonschema.validate(read(DOCKER / name), json.loads(found.read_text()))


def test_the_profiles_are_those_that_the_first_lines_name() -> None:
    found: dict[str, set[str]] = {}
    for name, service in services().items():
        for profile in service.get("profiles", ["core"]):
            found.setdefault(profile, set()).add(name)
    assert found == PROFILES
    told = (DOCKER / "compose.yml").read_text()
    assert set(re.findall(r"--profile (\w+)", told)) == PROFILES.keys()


def filled(text: str) -> str:
    """With Compose's variables filled in: `${NAME}`, `${NAME:-default}`, `${NAME:?complaint}`."""
    return re.sub(
        r"\$\{(\w+)(?::-([^}]*))?[^}]*\}", lambda m: FILLED.get(m[1]) or m[2] or "x", text
    )


def test_production_is_on_a_secured_kafka_encrypted_and_signed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    added = read(PRODUCTION)
    assert added["services"].keys() <= services().keys()
    assert added["services"].pop("kafka") == {"profiles": ["own-kafka"]}
    topics_wait_for = services()["topics"]["depends_on"]["kafka"]
    assert topics_wait_for["required"] is False
    for name, service in added["services"].items():
        environment = {
            **image_environment(),
            **services()[name]["environment"],
            **service["environment"],
        }
        with monkeypatch.context() as patched:
            for variable, text in environment.items():
                if variable.startswith("DRIFTLINE_"):
                    patched.setenv(variable, filled(text))
            settings = load_settings()
        assert settings.broker.security == "SASL_SSL", name
        named = re.findall(r"/run/secrets/(\w+)", " ".join(service["environment"].values()))
        assert sorted(named) == sorted(service["secrets"]), name
        assert set(service["secrets"]) <= added["secrets"].keys()
        if name != "topics":
            # The monitor holds nothing about users.
            assert settings.privacy.encryption == (name != "monitor"), name
            assert service["read_only"] is True, name
        assert (settings.security.signing_key is not None) == (name == "learner")
    for service in ("worker", "learner"):
        assert "trusted" in added["services"][service]["secrets"]
