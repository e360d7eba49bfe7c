"""Is everything in place?  One finding per thing that a deployment stands on, each with a remedy.

Looks, and changes nothing.  Kafka is asked as the settings say it is asked, so a finding holds for
the user whose settings these are; `role` names whose rights on the topics to compare.  A finding is
`ok`, `warn` (works, with a drawback that is named) or `fail` (does not work).
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec
from packaging.requirements import Requirement
from rich.markup import escape
from rich.table import Table

from profiles.access_control import Role, grants
from profiles.broker_access import security_options
from profiles.config import Settings
from profiles.encoder import base_sha256
from profiles.errors import BrokerError, DriftlineError, SettingsError, TopicError
from profiles.registry import ReleaseStore
from profiles.signing import load_trusted
from profiles.topics import topic_specs
from stream.kafka_rights import operations_on_groups, operations_on_topics
from stream.topic_admin import check_topics

GIB = 2**30
LITTLE_DISK_BYTES = 5 * GIB
TIME_ERROR = 5
"""What adjtimex(2) returns while nothing keeps the clock right."""


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was found of one thing, and what to do about it."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    remedy: str = ""


def examine(settings: Settings, role: Role | None = None) -> list[Finding]:
    """Every finding, in the order in which things are needed."""
    found = [_versions(), _clock()]
    broker = _kafka(settings)
    found += broker
    if broker[0].status == "ok":
        found.append(_rights(settings, role))
    found += [_disk(settings), _releases(settings), _keys(settings), _model(settings)]
    return [*found, _accelerator(settings)]


def _versions() -> Finding:
    """Installed packages against what this driftline was made for."""
    wrong: list[str] = []
    for line in importlib.metadata.requires("driftline") or ():
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            has = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{wanted.name} is missing")
            continue
        if has not in wanted.specifier:
            wrong.append(f"{wanted.name} is {has}, not {wanted.specifier}")
    own = f"driftline {importlib.metadata.version('driftline')}, Python {platform.python_version()}"
    if wrong:
        return Finding(
            "versions", "fail", "; ".join(wrong), "install from requirements.lock: `make setup`"
        )
    return Finding("versions", "ok", own)


def _clock() -> Finding:
    """Whether the kernel believes that something keeps its clock right."""
    state = -1
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        state = libc.adjtimex(ctypes.create_string_buffer(512))  # modes 0: only reads
    if state in (TIME_ERROR, -1):
        said = "not known to be synchronised" if state == TIME_ERROR else "its state cannot be read"
        return Finding(
            "clock", "warn", said,
            "run chrony or systemd-timesyncd: events dated ahead of a worker's clock by more than "
            "serving.max_ahead_s are dead letters",
        )  # fmt: skip
    return Finding("clock", "ok", "synchronised")


def _kafka(settings: Settings) -> list[Finding]:
    broker, prefix = settings.broker, settings.topics.prefix
    specs = topic_specs(prefix, settings.topics.partitions)
    try:
        check_topics(
            broker.bootstrap, specs, broker.connect_timeout_s,
            client_options=security_options(broker),
        )  # fmt: skip
    except TopicError as error:
        return [
            Finding("broker", "ok", broker.bootstrap),
            Finding(
                "topics",
                "fail",
                str(error),
                "`driftline topics create` makes missing ones; `--role` compares the rights",
            ),
        ]
    except (BrokerError, SettingsError) as error:
        remedy = "set DRIFTLINE_BROKER__BOOTSTRAP, or start one with `driftline broker`"
        return [Finding("broker", "fail", str(error), remedy)]
    return [
        Finding("broker", "ok", f"{broker.bootstrap}, {broker.security}"),
        Finding("topics", "ok", f"all {len(specs)} under {prefix!r} are as the contract says"),
    ]


def _rights(settings: Settings, role: Role | None) -> Finding:
    """What the broker lets these settings' user do, against what the role needs."""
    if role is None:
        return Finding("rights", "ok", "not compared: name a role with --role")
    needed = grants(role, settings)
    try:
        allowed = {
            kind: find(
                settings.broker.bootstrap,
                {grant.name for grant in needed if grant.kind == kind},
                settings.broker.connect_timeout_s,
                client_options=security_options(settings.broker),
            )
            for kind, find in (("topic", operations_on_topics), ("group", operations_on_groups))
        }
    except DriftlineError as error:
        return Finding("rights", "fail", str(error), f"`driftline topics acls {role}` lists them")
    missing = [
        f"{grant.operation} on {grant.kind} {grant.name}"
        for grant in needed
        if grant.name in allowed[grant.kind]  # of a topic that does not exist nothing is told
        and _plain(grant.operation) not in allowed[grant.kind][grant.name]
    ]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        return Finding(
            "rights", "fail", f"a {role} needs {', '.join(missing[:3])}{more}",
            f"grant what `driftline topics acls {role}` prints",
        )  # fmt: skip
    topics, groups = map(len, allowed.values())
    return Finding("rights", "ok", f"all that a {role} needs: {topics} topics, groups: {groups}")


def _plain(operation: str) -> str:
    """An operation, however it is spelt.

    >>> _plain("DescribeConfigs") == _plain("DESCRIBE_CONFIGS")
    True
    """
    return operation.replace("_", "").lower()


def _disk(settings: Settings) -> Finding:
    folder = settings.store.directory.absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK):
        return Finding(
            "disk", "fail", f"{there} cannot be written", "change its owner, or store.directory"
        )
    free = shutil.disk_usage(there).free
    said = f"{folder}: {free / GIB:.0f} GiB free"
    if free < LITTLE_DISK_BYTES:
        return Finding("disk", "warn", said, "profiles need about 2 KB a user: docs/scaling.md")
    return Finding("disk", "ok", said)


def _releases(settings: Settings) -> Finding:
    url = settings.store.releases
    if "://" not in url and not Path(url).exists():
        return Finding("releases", "ok", f"{url} is still to be made by the learner")
    try:
        names = ReleaseStore(url, settings.store.directory / "release-cache").names()
    except (DriftlineError, OSError) as error:
        return Finding("releases", "fail", f"{url}: {error}", "check store.releases and its access")
    return Finding("releases", "ok", f"{len(names)} in {url}")


def _keys(settings: Settings) -> Finding:
    security = settings.security
    try:
        trusted = load_trusted(security.trusted_keys)
    except DriftlineError as error:
        return Finding("keys", "fail", str(error), "correct security.trusted_keys")
    if not trusted:
        return Finding(
            "keys", "warn", "releases are served whoever made them",
            "sign them: security.signing_key and security.trusted_keys (docs/production.md)",
        )  # fmt: skip
    return Finding("keys", "ok", f"{len(trusted)} trusted")


def _model(settings: Settings) -> Finding:
    base = settings.model.base
    try:
        weights = base_sha256(base)
    except DriftlineError as error:
        return Finding("model", "fail", str(error), "correct model.base")
    if weights.startswith("name:"):
        return Finding(
            "model", "warn", f"{base} is not on this machine and will be downloaded",
            "name a directory where there is no way to the hub",
        )  # fmt: skip
    return Finding("model", "ok", f"{base}, weights {weights[:12]}")


def _accelerator(settings: Settings) -> Finding:
    import torch

    wanted = settings.learner.device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted.startswith("cuda") and not count:
        return Finding(
            "gpu", "fail", f"learner.device is {wanted}, and torch {torch.__version__} sees no GPU",
            "install the driver and a CUDA build of torch, or set learner.device=auto",
        )  # fmt: skip
    if count:
        return Finding("gpu", "ok", f"{count} x {torch.cuda.get_device_name(0)}")
    return Finding("gpu", "ok", "none: rounds run on the processor")


def as_table(findings: list[Finding]) -> Table:
    """The findings for people, each with what to do about it."""
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    table = Table("", "what", "found, and what to do")
    for finding in findings:
        said = escape(finding.found)
        if finding.remedy and finding.status != "ok":
            said += f"\n[bold]→ {escape(finding.remedy)}[/]"
        table.add_row(f"[{colours[finding.status]}]{finding.status}[/]", finding.name, said)
    return table
