"""Key rotations from the command line leave their mark in the audit log, and no key in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from profiles.audit import AuditLog
from profiles.key_file import parse_keys
from profiles.signing import load_trusted
from stream.cli import app

pytestmark = pytest.mark.unit


def test_every_kind_of_key_is_made_and_rotated_and_audited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_STORE__DIRECTORY", str(tmp_path / "data"))
    keys, public = tmp_path / "master.keys", tmp_path / "trusted.pem"

    def run(*words: str) -> int:
        return CliRunner().invoke(app, ["keys", *words]).exit_code

    assert run("create", str(keys)) == 0
    assert run("rotate", str(keys)) == 0
    assert run("sign", str(tmp_path / "signing.pem"), str(public)) == 0
    assert run("create", str(keys)) != 0
    held = parse_keys("keys", keys.read_text())
    assert held.versions == [2, 1]
    assert len(load_trusted([public])) == 1
    log = AuditLog(tmp_path / "data" / "audit.jsonl")
    assert log.verify().lines == 3
    told = log.path.read_text()
    assert [act in told for act in ("key created", "key rotated", "signing key created")] == [
        True
    ] * 3
    assert not any(line.partition(":")[2] in told for line in keys.read_text().split())
