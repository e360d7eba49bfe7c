"""The HTTP API as a process beside a real broker and a real worker."""

from __future__ import annotations

import subprocess
import sys
import time

import httpx2
import msgspec
import pytest

from profiles.wire import encode
from tests.deployment import ITEMS, Deployment, make_events, wait_until

pytestmark = pytest.mark.kafka


def test_what_is_posted_over_http_comes_back_as_profile_and_recommendation(
    deployment: Deployment,
) -> None:
    deployment.start_worker().wait_ready()
    deployment.send_events(make_events(users=2, each=3))
    deployment.wait_applied(6)
    with (
        deployment.serving("serve") as base_url,
        httpx2.Client(base_url=base_url, timeout=30) as http,
    ):
        # From before the API started.
        assert http.get("/v1/profiles/user-0").json()["events"] == 3
        assert http.get("/v1/recommendations/user-0").json()["cause"] == "event"
        assert http.get("/v1/releases").json()["serving"]

        event = {"user_id": "ann", "item_id": "item-1", "action": "like"}
        posted = http.post("/v1/events", json=event)
        assert posted.status_code == 202
        (event_id,) = posted.json()["event_ids"]

        def caused_by() -> str:
            return str(http.get("/v1/recommendations/ann").json()["cause_id"])

        wait_until("the event's recommendation", lambda: caused_by() == event_id)
        profile = http.get("/v1/profiles/ann").json()
        assert [past["title"] for past in profile["history"]] == ["tale number 1"]
        asked = http.get("/v1/recommendations/ann?any_tag=song&k=3").json()
        assert asked["cause"] == "request"
        assert [item["title"].split()[0] for item in asked["items"]] == ["song"] * 3
        _try_the_filters(http, deployment)

        assert http.post("/v1/erasures", json={"user_id": "ann"}).status_code == 202
        wait_until("ann is gone", lambda: http.get("/v1/profiles/ann").status_code == 404)


def _try_the_filters(http: httpx2.Client, deployment: Deployment) -> None:
    """What a request may ask for, answered by the worker; ann has liked item-1."""

    def listed(query: str) -> list[str]:
        answer = http.get(f"/v1/recommendations/ann?k={ITEMS}&{query}").json()
        return [item["item_id"] for item in answer["items"]]

    new = msgspec.structs.replace(deployment.items[0], attributes={"published_at": time.time()})
    sold_out = msgspec.structs.replace(deployment.items[2], available=False)
    for item in (new, sold_out):
        deployment.send(deployment.topics.items, item.item_id, encode(item))
    wait_until("the worker hears of it", lambda: "item-2" not in listed("exclude_seen=false"))
    everything = {item.item_id for item in deployment.items}
    assert set(listed("exclude_seen=false")) == everything - {"item-2"}
    assert set(listed("exclude_seen=false&unavailable=true")) == everything
    assert set(listed("fresh=true")) == everything - {"item-1", "item-2"}
    assert set(listed("no_tag=song&exclude=item-3")) == {
        item.item_id for item in deployment.items if "song" not in item.tags
    } - {"item-1", "item-2", "item-3"}
    plain = listed("diversity=0")
    assert plain[0] != "item-0"
    assert listed("freshness=100")[0] == "item-0"
    varied = listed("diversity=0.9")
    assert set(varied) == set(plain)
    assert varied != plain


def test_an_exposed_api_without_a_token_does_not_start(deployment: Deployment) -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "stream", "serve", "--host", "192.0.2.7"],
        env=deployment.environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert outcome.returncode == 2
    assert "DRIFTLINE_SECURITY__API_TOKEN" in outcome.stderr
    assert "Traceback" not in outcome.stderr
