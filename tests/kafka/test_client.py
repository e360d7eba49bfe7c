"""The client against a real broker and a real worker."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from profiles.answers import Filters, Recommendation
from profiles.erasures import Receipt
from profiles.errors import BadMessage, NoAnswerError
from profiles.items import Item
from profiles.wire import decode_json, encode
from stream.client import AsyncDriftline, Driftline
from tests.deployment import Deployment, make_events, wait_until

pytestmark = pytest.mark.kafka


def test_an_application_produces_declares_asks_subscribes_and_erases(
    deployment: Deployment,
) -> None:
    deployment.start_worker().wait_ready()
    with Driftline(deployment.settings) as client:
        with client.subscribe(users=["ann"]) as recommendations:
            client.put_items([Item("fresh", "tale of a lamp", tags=["tale"])])
            client.declare("newcomer", "song number")
            assert client.send(make_events(users=2, each=3)) == 6
            event = client.act("ann", "item-1", "like")
            found = recommendations.next(timeout_s=30.0)
        assert found is not None
        assert (found.user_id, found.cause_id) == ("ann", event.event_id)
        answer = client.recommend("ann", k=3, filters=Filters(any_tags=["song"]), timeout_s=30.0)
        assert answer.cause == "request"
        assert all(int(item.item_id.split("-")[1]) >= 20 for item in answer.items)
        assert len(client.recommend("newcomer", k=5).items) == 5
        with pytest.raises(BadMessage, match="sneeze"):
            client.act("ann", "item-1", "sneeze")
        shown = json.loads(recommended(deployment, "ann", "--tag", "song", "--json"))
        assert [item["item_id"] for item in shown["items"]] == [i.item_id for i in answer.items]
        assert shown["release_id"] in recommended(deployment, "ann", "--tag", "song")
        assert "No item" in recommended(deployment, "ann", "--tag", "nothing is called so")
        erasure = client.erase("ann")

        def receipts() -> set[str]:
            records = deployment.read(deployment.topics.receipts)
            return {decode_json(record.value, Receipt).erasure_id for record in records}

        wait_until("a receipt", lambda: receipts() == {erasure})


def recommended(deployment: Deployment, user: str, *words: str) -> str:
    """What the command prints."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "stream", "recommend", user, "-k", "3", *words],
        env=deployment.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout


async def test_a_group_goes_on_where_it_was(deployment: Deployment) -> None:
    async with AsyncDriftline(deployment.settings) as client:

        async def hear(*outputs: str) -> list[str]:
            """A member of the group that ends after the next output."""
            async with client.subscribe(group="shop") as recommendations:
                for output in outputs:
                    value = encode(
                        Recommendation(output, "ann", [], "r", "r", 1, "event", "e", 0, 0, 1.0)
                    )
                    await asyncio.to_thread(
                        deployment.send, deployment.topics.recommendations, "ann", value
                    )
                found = await recommendations.next(timeout_s=30.0)
                assert found is not None
                await recommendations.next(timeout_s=0.1)  # asking for more: done with the first
                return [found.output_id]

        assert await hear("o1") == ["o1"]
        value = encode(Recommendation("o2", "ann", [], "r", "r", 1, "event", "e", 0, 1, 2.0))
        await asyncio.to_thread(deployment.send, deployment.topics.recommendations, "ann", value)
        assert await hear() == ["o2"]


async def test_without_a_worker_a_request_times_out_and_says_what_to_look_at(
    deployment: Deployment,
) -> None:
    async with AsyncDriftline(deployment.settings) as client:
        with pytest.raises(NoAnswerError, match="/readyz"):
            await client.recommend("ann", timeout_s=0.5)


def test_the_example_runs_as_its_first_lines_say(deployment: Deployment) -> None:
    deployment.start_worker().wait_ready()
    example = Path(__file__).parents[2] / "examples" / "produce_and_read.py"
    outcome = subprocess.run(
        [sys.executable, str(example), "--user", "alice"],
        env=deployment.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert "because of request" in outcome.stdout
    assert "because of event" in outcome.stdout


def test_an_import_sends_the_good_lines_with_their_items_and_keeps_the_bad(
    deployment: Deployment,
) -> None:
    calls = [
        {
            "event": "Product Viewed",
            "userId": "ann",
            "messageId": name,
            "timestamp": "2023-11-14T22:13:20Z",
            "properties": {"product_id": item, "name": "a tale"},
        }
        for name, item in (("m1", "imported"), ("m2", ""), ("m3", "item-1"))
    ]
    file = deployment.root / "calls.jsonl"
    file.write_text("\n".join(map(json.dumps, calls)))
    outcome = subprocess.run(
        [sys.executable, "-m", "stream", "import", str(file), "--format", "segment", "--items"],
        env=deployment.environment,
        cwd=deployment.root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert "sent 2 events and 2 items; 1 lines were bad" in outcome.stdout
    assert ["2", "invalid"] in [
        row.replace("│", " ").split()[:2] for row in outcome.stdout.splitlines()
    ]
    events = [json.loads(record.value) for record in deployment.read(deployment.topics.events)]
    assert [event["event_id"] for event in events] == ["m1", "m3"]
    assert b"imported" in {record.key for record in deployment.read(deployment.topics.items)}
    assert (deployment.root / "calls.jsonl.rejects.jsonl").read_text().count("\n") == 1
