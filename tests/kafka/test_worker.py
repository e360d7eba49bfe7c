"""A real worker on a real broker: what goes in, what comes out, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from typing import Any

import psutil
import pytest

from profiles.answers import Filters, Recommendation, Request
from profiles.events import Event, Saying
from profiles.items import Item, User
from profiles.wire import encode
from stream.letters import original_of
from stream.user_rights import partition_of
from tests.deployment import Deployment, make_events, wait_until

pytestmark = pytest.mark.kafka


def test_events_become_profiles_and_recommendations_and_bad_ones_dead_letters(
    deployment: Deployment,
) -> None:
    worker = deployment.start_worker()
    worker.wait_ready()
    events = make_events(users=6, each=5)
    good = encode(events[0])
    bad = {
        "malformed": ("user-0", b'{"event_id": "x", '),
        "invalid": ("user-0", b'{"event_id": 7}'),
        "empty": ("user-0", b""),
        "oversized": ("user-0", good + b" " * 70_000),
        "unknown-item": ("user-0", _event(item_id="nowhere")),
        "unknown-action": ("user-0", _event(action="sneeze")),
        "future-dated": ("user-0", _event(ts=4e9)),
        "wrong-key": ("somebody", _event()),
        "bad-text": ("user-0", _event(user_id="user-0\x00")),
    }
    deployment.send_events(events[:15])
    for key, payload in bad.values():
        deployment.send(deployment.topics.events, key, payload)
    deployment.send_events(events[15:])
    deployment.wait_applied(len(events))

    dead = deployment.read(deployment.topics.dlq(deployment.topics.events))
    by_reason = {
        dict(record.headers)["__connect.errors.exception.class.name"].decode(): record
        for record in dead
    }
    assert set(by_reason) == set(bad)
    for reason, (key, payload) in bad.items():
        original = original_of(by_reason[reason])
        assert (original.key, original.value or b"") == (key.encode(), payload)
    assert worker.metric("driftline_dead_letters_total") == len(bad)
    assert deployment.applied() == {f"user-{number}": 5 for number in range(6)}

    recommendations = deployment.recommendations()
    assert {entry.user_id for entry in recommendations} == {f"user-{n}" for n in range(6)}
    for entry in recommendations:
        assert entry.release_id == entry.profile_release_id
        assert len(entry.items) == 10
        assert all(item.title and item.reasons for item in entry.items)
    assert worker.stop() == 0


def test_an_event_of_an_unknown_item_holds_up_its_own_partition_only(
    deployment: Deployment,
) -> None:
    worker = deployment.start_worker(DRIFTLINE_SERVING__CATALOGUE_WAIT_S="600")
    worker.wait_ready()
    place = {user: partition_of(user.encode(), 4) for user in map("user-{}".format, range(20))}
    early = "user-0"
    elsewhere = next(user for user in place if place[user] != place[early])
    late = Item("late", "a song that comes after its first listener")
    deployment.send_events([Event("on-late", early, late.item_id, "like", 2e6)])
    deployment.send_events([Event("after-it", early, "item-1", "like", 2e6)])
    deployment.send_events([Event("beside-it", elsewhere, "item-2", "like", 2e6)])

    def answered() -> list[str]:
        return [entry.cause_id for entry in deployment.recommendations()]

    wait_until("the other partition's answer", lambda: "beside-it" in answered())
    assert deployment.applied() == {elsewhere: 1}
    deployment.send(deployment.topics.items, late.item_id, encode(late))
    deployment.wait_applied(3)
    assert deployment.applied() == {early: 2, elsewhere: 1}
    assert worker.metric("driftline_dead_letters_total") == 0
    assert worker.stop() == 0


def test_requests_are_answered_with_filters_and_new_items_and_interests_count_at_once(
    deployment: Deployment,
) -> None:
    worker = deployment.start_worker()
    deployment.send_events(make_events(users=2, each=3))
    fresh = Item("brand-new", "tale of a song", tags=["tale"])
    deployment.send(deployment.topics.items, fresh.item_id, encode(fresh))
    deployment.send(
        deployment.topics.users, "newcomer", encode(User("newcomer", interests="song number"))
    )
    worker.wait_ready()
    deployment.wait_applied(6)
    # An event of an item that is newer than the release: its text alone gives it a place.
    deployment.send_events([Event("on-new", "user-0", "brand-new", "like", 2e6)])
    deployment.wait_applied(7)
    # Words without an item are read by the worker's language model, produced twice they count once.
    saying = Saying("said", "user-1", "like", 2e6, "a tale of a song")
    for _ in range(2):
        deployment.send(deployment.topics.events, saying.user_id, encode(saying))
    deployment.send_events([Event("after", "user-1", "item-3", "like", 2e6)])
    deployment.wait_applied(9)
    assert deployment.applied() == {"user-0": 4, "user-1": 5, "newcomer": 0}
    assert worker.metric("driftline_texts_read_total") == 1
    songs = Request("r1", "user-0", k=5, filters=Filters(any_tags=["song"]), exclude=["item-21"])
    everything = Request("r2", "newcomer", k=60)
    unwanted = Request("r3", "user-0", k=0)
    for request in (songs, everything, unwanted):
        deployment.send(deployment.topics.requests, request.user_id, encode(request))

    def answers() -> dict[str, Recommendation]:
        return {
            entry.cause_id: entry
            for entry in deployment.recommendations()
            if entry.cause == "request"
        }

    wait_until("two answers", lambda: len(answers()) == 2)
    chosen = [item.item_id for item in answers()["r1"].items]
    assert len(chosen) == 5
    assert all(int(name.split("-")[1]) >= 20 for name in chosen)
    assert "item-21" not in chosen
    assert len(answers()["r2"].items) == 41
    dead = deployment.read(deployment.topics.dlq(deployment.topics.requests))
    assert [record.value for record in dead] == [encode(unwanted)]


def test_a_killed_worker_loses_and_doubles_nothing_with_its_store_and_without(
    deployment: Deployment,
) -> None:
    first = deployment.start_quick_worker("a")
    deployment.send_events(make_events(users=20, each=10))
    first.wait_ready()
    deployment.wait_applied(150)
    first.kill()
    deployment.send_events(make_events(users=20, each=5, start=10))
    again = deployment.start_quick_worker("a")
    again.wait_ready()
    deployment.wait_applied(300)
    assert deployment.applied() == {f"user-{number}": 15 for number in range(20)}
    again.kill()
    deployment.send_events(make_events(users=20, each=5, start=15))
    # Another directory: nothing local, all profiles come from the changelog.
    elsewhere = deployment.start_quick_worker("b")
    elsewhere.wait_ready()
    deployment.wait_applied(400)
    assert deployment.applied() == {f"user-{number}": 20 for number in range(20)}
    assert elsewhere.metric("driftline_profiles{") == 20
    assert elsewhere.stop() == 0


def test_two_workers_share_the_partitions_and_one_takes_over_when_the_other_stops(
    deployment: Deployment,
) -> None:
    first = deployment.start_quick_worker("a")
    first.wait_ready()
    deployment.send_events(make_events(users=30, each=5))
    second = deployment.start_quick_worker("b")
    second.wait_ready()
    deployment.send_events(make_events(users=30, each=5, start=5))
    deployment.wait_applied(300)
    wait_until("both hold profiles", lambda: 0 < second.metric("driftline_profiles{") < 30)
    assert first.metric("driftline_profiles{") + second.metric("driftline_profiles{") == 30
    assert first.stop() == 0
    deployment.send_events(make_events(users=30, each=5, start=10))
    deployment.wait_applied(450)
    assert deployment.applied() == {f"user-{number}": 15 for number in range(30)}
    wait_until("the other holds all", lambda: second.metric("driftline_profiles{") == 30)


def test_releases_are_swapped_under_load_refused_when_wrong_and_rolled_back(
    deployment: Deployment,
) -> None:
    worker = deployment.start_worker()
    worker.wait_ready()
    first = deployment.recommendations
    old = deployment.store.names()[0]
    new = deployment.new_release(seed=99)
    broken = deployment.new_release(seed=100)
    head = deployment.root / "releases" / broken / "head.safetensors"
    head.write_bytes(head.read_bytes()[:-1] + b"\x01")

    def serving(release: str) -> bool:
        shown = worker.metric(f'driftline_serving_release_info{{release_id="{release}"}}')
        return bool(shown == 1.0)

    for number, release in enumerate([None, new, broken, old]):
        if release is not None:
            deployment.announce(release)
        if release == broken:
            wait_until("refused", lambda: worker.metric("driftline_releases_refused_total") == 1)
            assert serving(new)
        elif release is not None:
            wait_until(f"{release} serves", partial(serving, release))
        deployment.send_events(make_events(users=20, each=5, start=5 * number))
        deployment.wait_applied(100 * (number + 1))

    assert deployment.applied() == {f"user-{number}": 20 for number in range(20)}
    made = first()
    assert {entry.release_id for entry in made} == {old, new}
    assert all(entry.release_id == entry.profile_release_id for entry in made)
    assert worker.metric("driftline_swaps_total") == 2


@pytest.mark.parametrize(
    ("environment", "says", "code"),
    [
        ({"DRIFTLINE_BROKER__BOOTSTRAP": "127.0.0.1:1"}, "127.0.0.1:1", 3),
        ({"DRIFTLINE_TOPICS__PREFIX": "nobody-made-these"}, "driftline topics create", 4),
        ({"DRIFTLINE_TOPICS__PARTITIONS": "7"}, "7", 4),
        ({"DRIFTLINE_STORE__DIRECTORY": "/proc/nowhere"}, "store.directory", 5),
        ({"DRIFTLINE_STORE__RELEASES": "/proc/nowhere"}, "store.releases", 7),
        ({"DRIFTLINE_MODEL__BASE": "/no/such/model"}, "model.base", 10),
        ({"DRIFTLINE_SERVING__K": "0"}, "serving.k", 2),
        ({"DRIFTLINE_HTTP__PORT": "99999"}, "http.port", 2),
    ],
)
def test_a_wrong_setting_ends_in_one_paragraph_with_the_remedy(
    deployment: Deployment, environment: dict[str, str], says: str, code: int
) -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "stream", "worker"],
        env={**deployment.environment, **environment},
        capture_output=True,
        text=True,
        timeout=120,  # the model's process imports for most of a minute on a busy machine
        check=False,
    )
    assert outcome.returncode == code, outcome.stderr
    message = outcome.stderr[outcome.stderr.rindex("error: ") :]
    assert says in message
    assert "Traceback" not in outcome.stderr


def _event(**changes: Any) -> bytes:
    values = {
        "event_id": "bad",
        "user_id": "user-0",
        "item_id": "item-1",
        "action": "rate",
        "ts": 1e6,
        **changes,
    }
    return json.dumps(values).encode()


def test_a_worker_listens_on_one_port_of_loopback_and_faust_on_none(
    deployment: Deployment,
) -> None:
    worker = deployment.start_worker()
    worker.wait_ready()
    process = psutil.Process(worker.process.pid)
    listening = {
        (connection.laddr.ip, connection.laddr.port)
        for each in [process, *process.children(recursive=True)]
        for connection in each.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {("127.0.0.1", int(worker.url("").rpartition(":")[2].strip("/")))}
