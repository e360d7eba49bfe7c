"""The HTTP API as a process beside a real broker and a real worker."""

from __future__ import annotations

import subprocess
import sys

import httpx2
import pytest

from tests.deployment import Deployment, make_events, wait_until

pytestmark = pytest.mark.kafka


def test_what_is_posted_over_http_comes_back_as_profile_and_recommendation(
    deployment: Deployment,
) -> None:
    deployment.start_worker().wait_ready()
    deployment.send_events(make_events(users=2, each=3))
    deployment.wait_applied(6)
    log = deployment.root / "api.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "stream", "serve", "--port", "0"],
            env={**deployment.environment, "PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=output,
        )
    try:
        wait_until("the API listens", lambda: "listens on" in log.read_text())
        told = next(line for line in log.read_text().splitlines() if "listens on" in line)
        base_url = told.split("listens on ")[1].rpartition("/")[0]
        with httpx2.Client(base_url=base_url, timeout=30) as http:
            wait_until("all is read", lambda: http.get("/readyz").status_code == 200)
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

            assert http.post("/v1/erasures", json={"user_id": "ann"}).status_code == 202
            wait_until("ann is gone", lambda: http.get("/v1/profiles/ann").status_code == 404)
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


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
