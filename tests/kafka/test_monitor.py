"""The opinion monitor against a real broker: labels in, one alert out, through a kill and a swap.

Posts are made up: tales are labelled negative, songs positive, and time is the items' own.
"""

from __future__ import annotations

import pytest

from profiles.opinions import Alert
from profiles.wire import decode_json
from stream.letters import original_of, told
from tests.deployment import WAIT_S, Deployment, WorkerProcess, wait_until
from tests.newsroom import MONITOR, Newsroom, label_everything

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

QUIET_MINUTES, LOUD_MINUTES, AFTER_MINUTES = 90, 10, 30


def start(deployment: Deployment) -> WorkerProcess:
    made = deployment.start_process("monitor", "monitor", MONITOR)
    made.wait_ready()
    return made


def alerts(deployment: Deployment) -> list[Alert]:
    return [
        decode_json(record.value, Alert) for record in deployment.read(deployment.topics.alerts)
    ]


def test_a_surge_is_told_once_through_a_kill_and_a_swap_and_its_end_is_told_too(
    deployment: Deployment,
) -> None:
    topics = deployment.topics
    label_everything(deployment)
    deployment.send(topics.labels, "item-1", b'{"item_id": "item-1"}')
    deployment.send(topics.labels, "item-2", b'{"item_id": "item-3", "sentiment": "negative"}')
    newsroom = Newsroom(deployment)
    newsroom.play(QUIET_MINUTES, 0)
    newsroom.play(LOUD_MINUTES, 5)

    monitor = start(deployment)
    wait_until("an alert", lambda: bool(alerts(deployment)))
    [raised] = alerts(deployment)
    assert (raised.entity, raised.state, raised.reason) == ("Nordbank", "raised", "surge")
    assert raised.negative > raised.expected
    assert raised.topics["tale"] > raised.topics["song"]
    known = {record.key.decode() for record in deployment.read(topics.items)}
    assert len(raised.evidence) == 5
    assert {each.item_id for each in raised.evidence} <= known
    assert {each.title for each in raised.evidence} == {"tale number 1"}
    letters = deployment.read(topics.dlq(topics.labels))
    assert {told(letter, "exception.class.name") for letter in letters} == {"no-label", "wrong-key"}
    assert original_of(letters[0]).value == b'{"item_id": "item-1"}'

    wait_until(
        "what was told is committed",
        lambda: deployment.committed(topics.items, "driftline-monitor") >= len(known),
    )
    monitor.kill()
    monitor = start(deployment)
    wait_until("it stands", lambda: monitor.metric("driftline_monitor_raised") == 1)
    assert len(deployment.read(topics.dlq(topics.labels))) == len(letters)

    deployment.announce(deployment.new_release(seed=9))
    wait_until("another space", lambda: monitor.metric("driftline_monitor_heads_total") == 2)
    newsroom.play(AFTER_MINUTES, 0)
    wait_until("its end", lambda: len(alerts(deployment)) == 2, within_s=2 * WAIT_S)
    recovered = alerts(deployment)[1]
    assert (recovered.state, recovered.reason) == ("recovered", "calm")
    assert recovered.alert_id == raised.alert_id
    assert recovered.release_id != raised.release_id
    assert monitor.metric('driftline_monitor_head_quality{figure="macro_f1"}') > 0.9
    assert monitor.stop() == 0


def test_labels_that_come_late_train_new_heads_without_a_swap(deployment: Deployment) -> None:
    monitor = start(deployment)
    assert monitor.metric("driftline_monitor_heads_total") == 1
    label_everything(deployment)
    # The first that come are all of one class, which teaches nothing: heads are trained again.
    wait_until(
        "heads of labels",
        lambda: monitor.metric('driftline_monitor_head_quality{figure="macro_f1"}') > 0.9,
    )
    assert monitor.metric("driftline_monitor_heads_total") > 1
    assert monitor.stop() == 0


def test_a_release_that_is_not_there_is_refused_and_the_one_before_reads_on(
    deployment: Deployment,
) -> None:
    monitor = start(deployment)
    deployment.announce("r00099-0123456789abcdef")
    refused = 'driftline_monitor_releases_refused_total{reason="not-in-store"}'
    wait_until("a refusal", lambda: monitor.metric(refused) == 1)
    assert monitor.is_ready()
    assert monitor.stop() == 0
