"""What the HTTP API answers, and what it refuses, on a read model filled by hand."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from profiles.answers import PREDICTION, Filters, Recommendation, ScoredItem
from profiles.config import Settings
from profiles.errors import BrokerError, NoAnswerError, ReleaseError, SettingsError
from profiles.events import Event
from profiles.items import Item
from profiles.notices import ReleaseNotice
from profiles.state import RecordLayout, empty_records, encode_records
from profiles.topics import Topics
from profiles.wire import Scalar, encode, key64
from stream.api.app import create_app
from stream.api.guard import Policy
from stream.api.parts import Parts
from stream.api.read_model import ReadModel
from tests.unit.builders import make_record

pytestmark = pytest.mark.unit

SETTINGS = Settings()
TOPICS = Topics.under()
TOKEN = "a-secret-of-more-than-16"


@dataclass
class FakeClient:
    """Stands in for Kafka and the workers behind it."""

    error: Exception | None = None
    sent: list[Event] = field(default_factory=list)
    asked: list[tuple[str, int, Filters | None, Sequence[str]]] = field(default_factory=list)
    declared: dict[str, str] = field(default_factory=dict)

    async def send(self, events: Iterable[Event]) -> int:
        if self.error is not None:
            raise self.error
        self.sent.extend(events)
        return len(self.sent)

    async def declare(
        self, user_id: str, interests: str, attributes: dict[str, Scalar] | None = None
    ) -> None:
        self.declared[user_id] = interests

    async def recommend(
        self,
        user_id: str,
        k: int = 10,
        *,
        filters: Filters | None = None,
        exclude: Sequence[str] = (),
        timeout_s: float = 10.0,
    ) -> Recommendation:
        if self.error is not None:
            raise self.error
        self.asked.append((user_id, k, filters, exclude))
        return recommendation(user_id, "asked")

    async def predict(
        self, user_id: str, items: Sequence[str], *, timeout_s: float = 10.0
    ) -> Recommendation:
        if self.error is not None:
            raise self.error
        found = [ScoredItem(item, 0.0, probability=0.25) for item in items]
        return msgspec.structs.replace(recommendation(user_id, "p1"), items=found)

    async def erase(self, user_id: str, reason: str = "") -> str:
        return f"erasure-of-{user_id}"


def recommendation(user_id: str, cause_id: str) -> Recommendation:
    items = [ScoredItem("i1", 1.0, "Heat")]
    return Recommendation("o1", user_id, items, "r1", "r1", 1, "event", cause_id, 0, 0, 5.0)


def profile_of(items: Sequence[str]) -> bytes:
    """A stored profile of events `like`, a minute apart, with declared interests behind it."""
    layout = RecordLayout.of(SETTINGS)
    records = empty_records(layout, 1)
    records["events"] = len(items)
    records["release"] = key64("r1")
    for slot, item_id in enumerate(items):
        like = sorted(SETTINGS.actions).index("like")
        records["history"][0, slot] = (key64(item_id), 60.0 * (slot + 1), like, 0.0)
    records["last_ts"] = 60.0 * len(items)
    return encode_records(layout, records, [b"crime films"])[0]


@pytest.fixture
def model() -> ReadModel:
    made = ReadModel(SETTINGS)
    items = [Item("i1", "Heat", tags=["Crime", "Drama"]), Item("i2", "Fargo", tags=["Crime"])]
    made.take(TOPICS.items, [make_record(0, encode(item), item.item_id) for item in items])
    notices = [ReleaseNotice("r1", "serving", 1, "s"), ReleaseNotice("r2", "refused", 2, "s")]
    made.take(TOPICS.releases, [make_record(0, encode(n), n.release_id) for n in notices])
    made.take(TOPICS.profiles, [make_record(0, profile_of(["i1", "gone", "i2"]), "ann")])
    newest = encode(recommendation("ann", "e1"))
    made.take(TOPICS.recommendations, [make_record(0, newest, "ann")])
    return made


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def http(model: ReadModel, client: FakeClient) -> TestClient:
    return TestClient(
        create_app(Parts(SETTINGS, model, client, lambda: None)), base_url="http://127.0.0.1"
    )


def test_the_newest_recommendation_is_at_hand_and_choices_are_asked_of_a_worker(
    http: TestClient, client: FakeClient
) -> None:
    assert http.get("/v1/recommendations/ann").json()["cause_id"] == "e1"
    assert client.asked == []
    assert http.get("/v1/recommendations/a/b%20c%0A").json()["user_id"] == "a/b c\n"
    http.get("/v1/recommendations/ann?fresh=true")
    http.get("/v1/recommendations/ann?k=3&any_tag=Crime&no_tag=War&exclude=i9&exclude_seen=false")
    http.get("/v1/recommendations/ann?diversity=0.5&freshness=2")
    http.get("/v1/recommendations/ann?unavailable=true")
    assert client.asked == [
        ("a/b c\n", 10, Filters(), []),
        ("ann", 10, Filters(), []),
        ("ann", 3, Filters(["Crime"], ["War"], False), ["i9"]),
        ("ann", 10, Filters(diversity=0.5, freshness=2.0), []),
        ("ann", 10, Filters(unavailable=True), []),
    ]


def test_a_profile_is_told_newest_event_first_with_titles_and_tags(http: TestClient) -> None:
    profile = http.get("/v1/profiles/ann").json()
    assert [event["title"] for event in profile["history"]] == ["Fargo", "", "Heat"]
    assert profile["history"][0] == {
        "item_id": "i2", "title": "Fargo", "action": "like", "ts": 180.0, "value": 0.0,
        "tags": ["Crime"],
    }  # fmt: skip
    assert profile["tags"] == {"Crime": 2, "Drama": 1}
    assert (profile["release_id"], profile["interests"]) == ("r1", "crime films")
    assert http.get("/v1/profiles/nobody").json()["error"] == "no-profile"


def test_an_erased_user_is_gone_from_memory(http: TestClient, model: ReadModel) -> None:
    tombstone = make_record(1, b"", "ann")
    tombstone.value = None
    model.take(TOPICS.profiles, [tombstone])
    model.take(TOPICS.recommendations, [tombstone])
    assert http.get("/v1/profiles/ann").status_code == 404
    assert http.get("/v1/recommendations/ann").json()["cause_id"] == "asked"


def test_probabilities_of_named_items_are_asked_of_a_worker(
    http: TestClient, client: FakeClient
) -> None:
    told = http.get("/v1/predictions/ann?item=i2&item=i1").json()
    assert [(item["item_id"], item["probability"]) for item in told["items"]] == [
        ("i2", 0.25), ("i1", 0.25),
    ]  # fmt: skip
    assert http.get("/v1/predictions/ann").status_code == 422
    client.error = ReleaseError("release 'r1' gives no probabilities")
    refused = http.get("/v1/predictions/ann?item=i1")
    assert (refused.status_code, refused.json()["error"]) == (409, "release")


def test_the_answer_to_a_prediction_is_never_told_as_a_recommendation(
    http: TestClient, model: ReadModel
) -> None:
    predicted = msgspec.structs.replace(recommendation("ann", "p1"), cause=PREDICTION)
    model.take(TOPICS.recommendations, [make_record(1, encode(predicted), "ann")])
    assert http.get("/v1/recommendations/ann").json()["cause_id"] == "asked"


def test_only_as_many_users_are_kept_as_the_setting_says() -> None:
    small = SETTINGS.model_copy(update={"api": SETTINGS.api.model_copy(update={"users": 2})})
    model = ReadModel(small)
    for user in ("a", "b", "c"):
        newest = encode(recommendation(user, "e1"))
        model.take(TOPICS.recommendations, [make_record(0, newest, user)])
    assert [model.recommendation(user) is not None for user in "abc"] == [False, True, True]
    assert [source.newest for source in model.sources] == [None, None, None, 2, 2]


def test_releases_and_items_are_told(http: TestClient) -> None:
    told = http.get("/v1/releases").json()
    assert told["serving"] == "r1"
    assert [notice["release_id"] for notice in told["releases"]] == ["r2", "r1"]
    assert [item["title"] for item in http.get("/v1/items?q=drama").json()["items"]] == ["Heat"]
    assert http.get("/v1/items?limit=1").json()["total"] == 2


def test_posted_events_get_ids_and_times_and_go_to_kafka(
    http: TestClient, client: FakeClient
) -> None:
    one = {"user_id": "ann", "item_id": "i1", "action": "like"}
    answer = http.post("/v1/events", json=one)
    assert (answer.status_code, answer.json()["event_ids"]) == (202, [client.sent[0].event_id])
    http.post("/v1/events", json=[{**one, "event_id": "mine", "ts": 5, "value": 2}])
    assert client.sent[1] == Event("mine", "ann", "i1", "like", 5.0, 2.0)


@pytest.mark.parametrize(
    ("body", "error", "says"),
    [
        ('{"user_id": "ann"}', "invalid", "action"),
        ('{"user_id": "ann", "item_id": "i", "action": "like", "x": 1}', "invalid", "unknown"),
        ('{"user_id"', "malformed", "not JSON"),
        ('{"user_id": "\\ud800", "item_id": "i", "action": "like"}', "malformed", "surrogate"),
        ("[]", "invalid", "length"),
        ('[{"user_id":"a","item_id":"i","action":"like","ts":9e12}]', "bad-events", "none was"),
    ],
)
def test_a_bad_event_is_refused_with_the_reason_and_nothing_is_sent(
    http: TestClient, client: FakeClient, body: str, error: str, says: str
) -> None:
    answer = http.post("/v1/events", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["error"] == error
    assert says in answer.json()["message"]
    assert client.sent == []


def test_of_several_events_each_bad_one_is_named(http: TestClient, client: FakeClient) -> None:
    good = {"user_id": "ann", "item_id": "i1", "action": "like"}
    bad = [good, {**good, "action": "sneeze"}, {**good, "user_id": "\x00"}]
    faults = http.post("/v1/events", json=bad).json()["faults"]
    assert [(fault["index"], fault["reason"]) for fault in faults] == [
        (1, "unknown-action"), (2, "bad-text"),
    ]  # fmt: skip
    assert client.sent == []


def test_users_declare_and_are_forgotten(http: TestClient, client: FakeClient) -> None:
    assert http.post("/v1/users", json={"user_id": "ann", "interests": "crime"}).is_success
    assert client.declared == {"ann": "crime"}
    told = http.post("/v1/erasures", json={"user_id": "ann"})
    assert (told.status_code, told.json()) == (202, {"erasure_id": "erasure-of-ann"})


@pytest.mark.parametrize(
    ("error", "status"), [(BrokerError("no Kafka"), 503), (NoAnswerError("nobody"), 504)]
)
def test_what_kafka_and_workers_do_not_do_is_said(
    http: TestClient, client: FakeClient, error: Exception, status: int
) -> None:
    client.error = error
    answer = http.get("/v1/recommendations/new")
    assert (answer.status_code, answer.json()["message"]) == (status, str(error))


def test_probes_say_what_is_missing_and_what_only_a_restart_can_mend(
    model: ReadModel, client: FakeClient
) -> None:
    app = create_app(Parts(SETTINGS, model, client, lambda: "reading items"))
    http = TestClient(app, base_url="http://localhost")
    assert (http.get("/readyz").status_code, http.get("/readyz").text) == (503, "reading items\n")
    assert http.get("/livez").text == "ok\n"
    broken = create_app(Parts(SETTINGS, model, client, lambda: None, lambda: "reading has ended"))
    assert TestClient(broken, base_url="http://localhost").get("/livez").status_code == 503


def with_api(settings: Settings, token: str | None = None, **api: object) -> Settings:
    security = settings.security.model_copy(update={"api_token": token and SecretStr(token)})
    return settings.model_copy(
        update={"api": settings.api.model_copy(update=api), "security": security}
    )


def test_beyond_loopback_a_token_is_needed_and_its_absence_is_explained() -> None:
    with pytest.raises(SettingsError, match="DRIFTLINE_SECURITY__API_TOKEN"):
        Policy.of(with_api(SETTINGS, host="192.0.2.7"))
    assert Policy.of(with_api(SETTINGS, TOKEN, host="192.0.2.7")).web.token == TOKEN
    assert Policy.of(with_api(SETTINGS, host="::1")).web.token is None


def test_with_a_token_every_route_of_the_api_wants_it(model: ReadModel, client: FakeClient) -> None:
    parts = Parts(with_api(SETTINGS, TOKEN, host="192.0.2.7"), model, client, lambda: None)
    http = TestClient(create_app(parts), base_url="http://shop.example")
    assert http.get("/readyz").status_code == 200
    for given in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}):
        answer = http.get("/v1/profiles/ann", headers=given)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    good = {"authorization": f"Bearer {TOKEN}"}
    assert http.get("/v1/profiles/ann", headers=good).status_code == 200
    assert "token" in http.get("/openapi.json").json()["components"]["securitySchemes"]


def test_pages_of_other_origins_cannot_use_a_visitors_browser(http: TestClient) -> None:
    event = {"user_id": "ann", "item_id": "i1", "action": "like"}
    rebound = http.get("/v1/releases", headers={"host": "evil.example"})
    assert (rebound.status_code, rebound.json()["error"]) == (403, "foreign-host")
    foreign = {"origin": "https://evil.example"}
    assert http.post("/v1/events", json=event, headers=foreign).json()["error"] == "foreign-origin"
    own = {"origin": "http://127.0.0.1"}
    assert http.post("/v1/events", json=event, headers=own).status_code == 202
    form = http.post(
        "/v1/events", content=json.dumps(event), headers={"content-type": "text/plain"}
    )
    assert form.status_code == 415


def test_a_body_beyond_the_bound_is_refused_with_and_without_its_length(
    model: ReadModel, client: FakeClient
) -> None:
    parts = Parts(with_api(SETTINGS, max_body_bytes=1024), model, client, lambda: None)
    http = TestClient(create_app(parts), base_url="http://127.0.0.1")
    headers = {"content-type": "application/json"}
    whole = http.post("/v1/events", content=b" " * 2000, headers=headers)
    pieces = http.post("/v1/events", content=iter([b" " * 1000] * 3), headers=headers)
    assert [answer.status_code for answer in (whole, pieces)] == [413, 413]
    assert "api.max_body_bytes" in pieces.json()["message"]


def test_every_answer_carries_the_security_headers(http: TestClient) -> None:
    for answer in (http.get("/v1/releases"), http.get("/nowhere"), http.get("/readyz")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"


def test_no_log_line_names_a_user(http: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    http.get("/v1/profiles/a-very-secret-user")
    http.get("/v1/recommendations/a-very-secret-user")
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("stream")]
    assert not [line for line in ours if "secret" in line]


def test_the_document_names_every_schema_it_refers_to(http: TestClient) -> None:
    document: dict[str, Any] = http.get("/openapi.json").json()
    text = json.dumps(document)
    names = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert names <= set(document["components"]["schemas"])
    assert {"Recommendation", "Profile", "EventIn", "Problem"} <= names
    assert all(path.startswith(("/v1/", "/livez", "/readyz")) for path in document["paths"])
