"""Encryption at rest on a real broker: a worker, its successor, its readers, and wrong keys."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest

from profiles.answers import Recommendation
from profiles.errors import SealError
from profiles.key_file import add_key
from profiles.sealing import is_sealed
from stream.client import AsyncDriftline
from stream.oracle import run_oracle
from stream.oracle.keys import read_key_map
from stream.user_rights import export_user
from tests.deployment import Deployment, make_events

pytestmark = pytest.mark.kafka
USERS, EACH = 3, 4


@pytest.fixture
def encrypted(deployment: Deployment, tmp_path: Path) -> Deployment:
    """The deployment with encryption on and a master key of its own."""
    add_key(tmp_path / "master.keys", create=True)
    deployment.environment["DRIFTLINE_PRIVACY__ENCRYPTION"] = "true"
    deployment.environment["DRIFTLINE_PRIVACY__MASTER_KEY_FILE"] = str(tmp_path / "master.keys")
    privacy = deployment.settings.privacy.model_copy(
        update={"encryption": True, "master_key_file": tmp_path / "master.keys"}
    )
    deployment.settings = deployment.settings.model_copy(update={"privacy": privacy})
    return deployment


@pytest.mark.timeout(240)
def test_only_who_has_the_master_key_reads_what_workers_keep(
    encrypted: Deployment, tmp_path: Path
) -> None:
    deployment, topics, settings = encrypted, encrypted.topics, encrypted.settings
    events = make_events(USERS, EACH)
    first = deployment.start_worker("a")
    deployment.send_events(events)
    deployment.wait_committed(len(events))
    for topic in (topics.profiles, topics.recommendations):
        records = deployment.read(topic)
        assert records
        assert all(is_sealed(record.value) for record in records)
    exported = export_user(settings, "user-0")
    assert exported.profile is not None
    assert [one.ts for one in exported.profile.history] == [
        event.ts for event in events if event.user_id == "user-0"
    ]
    plain = settings.model_copy(update={"privacy": type(settings.privacy)()})
    with pytest.raises(SealError, match="master_key_file"):
        export_user(plain, "user-0")

    async def ask() -> Recommendation:
        async with AsyncDriftline(settings) as client:
            return await client.recommend("user-0", 3, timeout_s=30)

    assert asyncio.run(ask()).user_id == "user-0"

    # Another machine restores keys, then profiles, with a newer master key beside the old one.
    first.kill()
    add_key(tmp_path / "master.keys", create=False)
    second = deployment.start_worker("b")
    later = make_events(USERS, EACH, start=EACH)
    deployment.send_events(later)
    deployment.wait_committed(len(events) + len(later))
    assert second.metric("driftline_keys_rewrapped_total") == USERS
    assert second.metric("driftline_sealed_records_refused_total") == 0
    keys = read_key_map(settings)
    assert keys is not None
    assert keys.versions() == {2: USERS}
    report = run_oracle(settings)
    assert (report.events_lost, report.events_double_applied) == (0, 0)
    assert report.profiles_checked == USERS
    assert (report.profiles_wrong, report.mixed_release_recommendations) == (0, 0)
    assert second.stop() == 0

    (tmp_path / "wrong.keys").write_text(f"2:{base64.b64encode(b'w' * 32).decode()}\n")
    refused = deployment.start_worker(
        "b", DRIFTLINE_PRIVACY__MASTER_KEY_FILE=str(tmp_path / "wrong.keys")
    )
    assert refused.process.wait(60) == SealError.exit_code
    assert "does not open with version 2 of the master key" in refused.text
