"""The demo's own settings: a TOML file in its directory that every child reads.

Environment variables keep their precedence, so that a setting can be tried out in the demo; only
where things lie and which Kafka is used is the demo's to say.  With DRIFTLINE_BROKER__BOOTSTRAP
set, that Kafka is used, under a topic prefix of the demo's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from profiles.config import Settings, load_settings
from profiles.errors import DriftlineError, SettingsError

FIRST_ROUND = 0.15
"""Share of the events before the first round: MovieLens-100K has 100,000."""
NEXT_ROUND = 0.22
LORA_STEPS, LORA_ITEMS = 10, 64
"""A quarter of the usual language-model steps, two thirds of the texts in each: on two busy cores
the usual ones alone take two minutes of every round."""
STAGE_LIMIT_S = 15.0
OURS = (
    "DRIFTLINE_BROKER__BOOTSTRAP",
    "DRIFTLINE_TOPICS__PREFIX",
    "DRIFTLINE_STORE__DIRECTORY",
    "DRIFTLINE_STORE__RELEASES",
    "DRIFTLINE_SERVING__GROUP",
    "DRIFTLINE_LEARNER__GROUP",
    "DRIFTLINE_HTTP__PORT",
    "DRIFTLINE_CONFIG",
)


@dataclass(frozen=True, slots=True)
class Setup:
    """Settings as the children see them, the file they are in, and the children's environment."""

    settings: Settings
    file: Path
    environment: Mapping[str, str]


def external_kafka() -> str | None:
    """The Kafka that the environment names, if it does."""
    return os.environ.get("DRIFTLINE_BROKER__BOOTSTRAP") or None


def make_setup(root: Path, bootstrap: str, events: int, domain: str | None = None) -> Setup:
    """Write `driftline.toml` for a replay of so many events, laid over a domain if one is named.

    Raises: SettingsError, also for a domain that has no ratings.
    """
    prefix = f"demo-{secrets.token_hex(4)}" if external_kafka() else "driftline"
    sections: dict[str, dict[str, str | int | float]] = {
        "broker": {"bootstrap": bootstrap},
        "topics": {"prefix": prefix},
        "store": {"directory": str(root / "data"), "releases": str(root / "releases")},
        "serving": {
            "group": f"{prefix}-workers",
            "user_interval_s": 0.0,
            "prequential_share": 1.0,
        },
        "learner": {
            "group": f"{prefix}-learner",
            "min_events": max(1, int(events * FIRST_ROUND)),
            "round_events": max(1, int(events * NEXT_ROUND)),
            "lora_steps": LORA_STEPS,
            "lora_items": LORA_ITEMS,
        },
        # Rounds come minutes apart here, so a candidate's stages may take seconds only.
        "rollout": {"shadow_events": 500, "canary_events": 300, "stage_limit_s": STAGE_LIMIT_S},
    }
    lines = ["# The settings of this demo; use it with --config."]
    for section, values in sections.items():
        lines += ["", f"[{section}]"]
        # A JSON string or number is a TOML one.
        lines += [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    file = root / "driftline.toml"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    if domain is not None:
        environment["DRIFTLINE_DOMAIN"] = domain
    settings = _read(file, sections, domain)
    if "rate" not in settings.actions:
        raise SettingsError(
            "the demo plays MovieLens, whose events are `rate`, an action that these settings lack "
            f"({', '.join(settings.actions)}); use --domain video, or none"
        )
    return Setup(settings, file, environment)


def _read(file: Path, ours: Mapping[str, Mapping[str, object]], domain: str | None) -> Settings:
    """The file's settings under the environment's, but for what is ours alone."""
    settings = load_settings(file, domain)
    fixed = {"broker": ["bootstrap"], "topics": ["prefix"], "store": ["directory", "releases"]}
    updates: dict[str, object] = {}
    for section, names in {**fixed, "serving": ["group"], "learner": ["group"]}.items():
        part = getattr(settings, section)
        changes = {name: ours[section][name] for name in names}
        if "directory" in changes:
            changes["directory"] = Path(str(changes["directory"]))
        updates[section] = part.model_copy(update=changes)
    return settings.model_copy(update=updates)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on just now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


@contextlib.contextmanager
def demo_directory(given: Path | None) -> Iterator[Path]:
    """The directory given, made if need be, or a temporary one, kept only after a known error.

    Raises: SettingsError.
    """
    if given is None:
        temporary = Path(tempfile.mkdtemp(prefix="driftline-demo-"))
        try:
            yield temporary
        except DriftlineError:
            raise  # what it says is worth a look at the logs
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        shutil.rmtree(temporary, ignore_errors=True)
        return
    try:
        given.mkdir(parents=True, exist_ok=True)
        if any(given.iterdir()):
            raise SettingsError(
                f"--data-dir {str(given)!r} is not empty: an old run's events would be counted "
                "again; give a new directory"
            )
    except OSError as error:
        raise SettingsError(f"--data-dir {str(given)!r} cannot be used: {error}") from error
    yield given.absolute()
