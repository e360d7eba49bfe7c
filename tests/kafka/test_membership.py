"""A worker's former self is taken out of its group; where that fails, it costs a session."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from profiles.settings.kafka import BrokerSettings
from profiles.topics import Topics
from stream.broker import EmbeddedKafka
from stream.broker_admin import TIMEOUT_S, admin_client
from stream.membership import FILE, Membership
from tests.members import join_group

pytestmark = pytest.mark.kafka


@pytest.fixture
def group() -> str:
    return f"group-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def former(kafka: EmbeddedKafka, topics: str, group: str) -> Iterator[str]:
    """The id of a member that has joined and says no more."""
    consumer = join_group(kafka.bootstrap, Topics.under(topics).events, group)
    try:
        yield consumer._coordinator._generation.member_id
    finally:
        consumer.close(autocommit=False)


def members(kafka: EmbeddedKafka, group: str) -> set[str]:
    with admin_client(kafka.bootstrap, TIMEOUT_S, None) as admin:
        return {member["member_id"] for member in admin.describe_groups([group])[group]["members"]}


def test_the_former_self_is_taken_out(
    kafka: EmbeddedKafka, group: str, former: str, tmp_path: Path
) -> None:
    broker = BrokerSettings(bootstrap=kafka.bootstrap)
    assert former in members(kafka, group)
    Membership(tmp_path).note(former)
    assert Membership(tmp_path).leave_behind(broker, group)
    assert former not in members(kafka, group)


def test_nobody_else_is_taken_out(
    kafka: EmbeddedKafka, group: str, former: str, tmp_path: Path
) -> None:
    broker = BrokerSettings(bootstrap=kafka.bootstrap)
    assert not Membership(tmp_path).leave_behind(broker, group)
    Membership(tmp_path).note("somebody-who-left")
    assert not Membership(tmp_path).leave_behind(broker, group)
    assert not Membership(tmp_path).leave_behind(broker, f"{group}-of-others")
    assert members(kafka, group) == {former}


def test_a_broker_that_is_away_only_costs_the_session(tmp_path: Path) -> None:
    with socket.socket() as bound:  # and not listening: nothing answers there
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    broker = BrokerSettings(bootstrap=f"127.0.0.1:{port}")
    Membership(tmp_path).note("me")
    assert not Membership(tmp_path).leave_behind(broker, "group")
    assert (tmp_path / FILE).read_text() == "me"
