"""What stands outside the code names only what the code has: commands, settings, files.

Compose file and Dockerfile against the command line and the settings, the documentation's links
against the tree.  Metrics: tests/unit/test_dashboards.py.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

from profiles.config import Settings, load_settings
from profiles.topics import Topics
from profiles.web_policy import WebPolicy
from stream import cli
from tests.monitoring import DOCKER, read

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [
        ROOT / "README.md",
        ROOT / "README.zh-CN.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
    ]
)
NOT_SETTINGS = {"DRIFTLINE_CONFIG", "DRIFTLINE_DOMAIN"}


def variables(model: type[BaseModel], prefix: str = "DRIFTLINE_") -> Iterator[str]:
    """The environment variable of every setting."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from variables(inner, f"{prefix}{name.upper()}__")
        else:
            yield f"{prefix}{name.upper()}"


def commands() -> set[tuple[str, ...]]:
    """Every command of the command line, as words."""
    root = typer.main.get_command(cli.app)

    def walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:  # Any: click's
        subcommands: Mapping[str, Any] = getattr(command, "commands", {})
        if not subcommands:
            yield path
        for name, inner in subcommands.items():
            yield from walk(inner, (*path, name))

    return set(walk(root, ()))


def services() -> dict[str, Any]:  # Any: a compose service
    found: dict[str, Any] = read(DOCKER / "compose.yml")["services"]
    return found


def ours() -> dict[str, Any]:  # Any: a compose service
    return {name: service for name, service in services().items() if "build" in service}


def image_environment() -> dict[str, str]:
    return dict(re.findall(r"(DRIFTLINE_\w+)=(\S+)", (DOCKER / "Dockerfile").read_text()))


def test_compose_runs_commands_that_exist() -> None:
    known = commands()
    assert ("topics", "create") in known
    for name, service in ours().items():
        assert tuple(service["command"]) in known, name
    assert set(ours()) == {"topics", "worker", "learner"}
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
    environments = [service["environment"] for service in ours().values()]
    assert all(environment == environments[0] for environment in environments)


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


def test_the_image_copies_only_what_its_context_holds() -> None:
    allowed = {
        line.removeprefix("!")
        for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", (DOCKER / "Dockerfile").read_text(), re.M)
        for source in line.split()[:-1]
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert set(wheel["targets"]["wheel"]["packages"]) <= copied


def test_the_example_settings_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "examples" / "settings.toml"
    for name in set(variables(Settings)) | NOT_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    load_settings(path)
    # What is commented out is allowed as well, and is the default.
    text = re.sub(r"^# (?=\[|\w+ = )", "", path.read_text(), flags=re.MULTILINE)
    load_settings(None, **tomllib.loads(text))
    plain = load_settings()
    for line in path.read_text().splitlines():
        commented = re.match(r"# (\w+) = ([^#]+)", line)
        if commented and commented.group(1) not in ("signing_key", "trusted_keys"):
            name, value = commented.group(1), tomllib.loads(f"x = {commented.group(2)}")["x"]
            sections = [plain, plain.serving, plain.profile, plain.learner, plain.model]
            assert value in [getattr(section, name, None) for section in sections], name


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documentation_names_settings_commands_topics_and_files_that_exist(path: Path) -> None:
    text = path.read_text()
    known = set(variables(Settings)) | NOT_SETTINGS
    assert set(re.findall(r"\bDRIFTLINE_[A-Z_]*[A-Z]\b", text)) <= known
    words = {name for command in commands() for name in command}
    for command in re.findall(r"`(?:\S*bin/)?driftline ((?:[a-z]+ ?)+)", text):
        assert command.split()[0] in words, command
    entities = Topics.__dataclass_fields__.keys()
    for topic in re.findall(r"\bdriftline\.(\w+)\.v1\b", text):
        assert topic in entities, topic
    for link in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text):
        assert (path.parent / link).exists(), link
    sections = {name for name, field in Settings.model_fields.items()}
    for section, name in re.findall(r"`(\w+)\.([a-z_]+)(?:=[^`]*)?`", text):
        if section in sections and section != "actions":
            model = Settings.model_fields[section].annotation
            assert isinstance(model, type)
            assert issubclass(model, BaseModel)
            assert name in model.model_fields, f"{section}.{name}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documentation_names_code_that_exists(path: Path) -> None:
    named = re.findall(
        r"`((?:profiles|stream|learner|docker|examples|tests|benchmarks)/[\w./-]+)`",
        path.read_text(),
    )
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_production_encrypts_what_workers_and_learner_keep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    added = read(DOCKER / "production.yml")
    assert set(added["services"]) == {"worker", "learner"}
    for service in added["services"].values():
        with monkeypatch.context() as patched:
            for variable, text in service["environment"].items():
                patched.setenv(variable, text)
            privacy = load_settings().privacy
        assert privacy.encryption
        (secret,) = service["secrets"]
        assert str(privacy.master_key_file) == f"/run/secrets/{secret}"
        assert secret in added["secrets"]
