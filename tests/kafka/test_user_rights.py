"""A user's rights on a real broker: what is held about her is exported, and gone once erased."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from profiles.audit import AuditLog
from profiles.errors import BrokerError
from profiles.items import User
from profiles.wire import encode
from stream.letters import Original, original_of
from stream.user_rights import Export, export_user, request_erasures, wait_for_receipts
from tests.deployment import Deployment, make_events, wait_until

pytestmark = pytest.mark.kafka
EACH = 4


@pytest.mark.timeout(240)
def test_a_user_is_exported_in_words_and_an_erasure_leaves_only_events_and_receipts(
    deployment: Deployment,
) -> None:
    settings, topics = deployment.settings, deployment.topics
    deployment.start_worker(DRIFTLINE_PRIVACY__AFTER_ERASURE="refuse")
    events = make_events(3, EACH)
    deployment.send_events(events)
    deployment.send(topics.users, "user-0", encode(User("user-0", interests="tales")))
    deployment.send(topics.events, "user-0", b"not JSON")
    deployment.wait_applied(3 * EACH)
    mine = [event for event in events if event.user_id == "user-0"]

    def declared() -> bool:
        profile = export_user(settings, "user-0").profile
        return profile is not None and profile.interest_text == "tales"

    wait_until("interests stored", declared)
    found = export_user(settings, "user-0")
    assert found.profile is not None
    assert [event.item_id for event in found.profile.history] == [event.item_id for event in mine]
    assert [event.ts for event in found.profile.history] == [event.ts for event in mine]
    assert any(event["event_id"] == mine[0].event_id for event in found.events[:-1])
    assert found.recommendations
    assert all(output["user_id"] == "user-0" for output in found.recommendations)
    assert [letter["value"] for letter in found.dead_letters] == ["not JSON"]

    (erasure,) = asyncio.run(request_erasures(settings, "user-0", "asked"))
    (receipt,) = wait_for_receipts(settings, erasure, ["worker"], 60.0)
    assert receipt.erased["profiles"] == 1
    assert receipt.erased["dead_letters"] == 1
    after = export_user(settings, "user-0")
    assert after.profile is None
    assert after.declared is None
    assert after.recommendations == []
    assert after.dead_letters == []
    assert after.receipts
    assert export_user(settings, "user-1").profile is not None
    for file in (settings.store.directory / "a").rglob("*"):
        if file.is_file() and "partition" in str(file):
            assert b"user-0" not in file.read_bytes(), file

    # What she does next is refused, and the letter holds nothing of hers.
    deployment.send_events([replace(events[0], event_id="later"), make_events(3, 1, EACH)[1]])
    deployment.wait_committed(3 * EACH + 3)
    assert export_user(settings, "user-0").profile is None
    (letter,) = (
        record
        for record in deployment.read(topics.dlq(topics.events))
        if ("__connect.errors.exception.class.name", b"erased") in record.headers
    )
    assert original_of(letter) == Original(None, None, [])
    acts = AuditLog.of(settings).path.read_text()
    assert erasure.erasure_id in acts
    assert "user-0" not in acts


def test_a_stranger_has_an_empty_export_and_a_missing_receipt_is_named(
    deployment: Deployment,
) -> None:
    empty = Export("nobody", None, None, [], [], [], [])
    assert encode(export_user(deployment.settings, "nobody")) == encode(empty)
    (erasure,) = asyncio.run(request_erasures(deployment.settings, "nobody", ""))
    with pytest.raises(BrokerError, match="learner and worker"):
        wait_for_receipts(deployment.settings, erasure, ["worker", "learner"], 0.0)
