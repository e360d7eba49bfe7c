"""`driftline earnings` on a broker: what the topics hold becomes what a slot earned."""

from __future__ import annotations

import json

import pytest
from kafka import KafkaProducer
from typer.testing import CliRunner

from profiles.answers import Recommendation, ScoredItem
from profiles.events import Event
from profiles.topics import Topics
from profiles.wire import encode
from stream.broker import EmbeddedKafka
from stream.cli import app

pytestmark = pytest.mark.kafka


def test_earnings_are_read_from_the_topics_and_the_unreadable_is_passed_over(
    kafka: EmbeddedKafka, topics: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Topics.under(topics)
    shown = [ScoredItem("a", 1.0), ScoredItem("b", 0.5)]
    recommendations = [
        Recommendation(f"o{n}", user, shown, "r", "r", 1, "event", "e", 0, 0, 9e9, 10.0)
        for n, user in enumerate(["ann", "bob"])
    ]
    events = [
        Event("e1", "ann", "a", "like", 20.0),
        Event("e2", "bob", "b", "dislike", 20.0),  # not a way of taking it
        Event("e3", "bob", "a", "like", 9_999.0),  # too late
    ]
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    try:
        for output in [*recommendations, recommendations[0]]:  # one was sent again
            producer.send(names.recommendations, key=output.user_id.encode(), value=encode(output))
        for event in events:
            producer.send(names.events, key=event.user_id.encode(), value=encode(event))
        producer.send(names.events, key=b"ann", value=b"{not an event")
        producer.flush(30)
    finally:
        producer.close()
    monkeypatch.setenv("DRIFTLINE_TOPICS__PREFIX", topics)

    told = CliRunner().invoke(
        app, ["earnings", "--within-s", "100", "--bootstrap", kafka.bootstrap]
    )

    assert told.exit_code == 0, told.output
    earned = json.loads(told.stdout)
    assert earned["recommendations"] == 2
    assert earned["as_served"]["value"] == earned["without_exploration"]["value"] == 0.25
