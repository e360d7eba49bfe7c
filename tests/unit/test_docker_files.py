"""What stands outside the code names only what the code has: commands, settings, files.

Compose file and Dockerfile against the command line and the settings, the documentation's links
against the tree.  Metrics: tests/unit/test_dashboards.py.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from profiles.config import Settings, load_settings
from profiles.topics import Topics
from tests.docker_settings import commands, variables
from tests.monitoring import DOCKER

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
