"""What the console shows of the topics, and what its routes and pages keep to."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import msgspec
import pytest
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata, TopicPartition
from fastapi.testclient import TestClient

from profiles.answers import Recommendation
from profiles.config import Settings
from profiles.errors import ReleaseError, ReleaseRefused, SettingsError
from profiles.manifest import Manifest
from profiles.notices import OutcomeCell, OutcomeWindow, PolicyOrder, ReleaseNotice
from profiles.release import Release
from profiles.topics import Topics
from profiles.wire import encode
from stream.api.app import create_app
from stream.api.parts import Parts
from stream.api.read_model import ReadModel
from stream.console.acts import Acts
from stream.console.gauges import Figures, Gauges
from stream.console.insight import Insight
from stream.console.live import KEPT, Live, Moment
from stream.console.routes import MATRIX, ConsoleParts, console_router
from stream.console.signs import LETTERS, Cause, Signs
from stream.dead_letters import LetterAt, Replayed, Which
from tests.unit.builders import NOW_S, make_items, make_record, make_release
from tests.unit.test_api import TOKEN, FakeClient, profile_of, with_api

pytestmark = pytest.mark.unit

SETTINGS = Settings()
TOPICS = Topics.under()
PAGES = {
    path.name: path.read_text(encoding="utf-8")
    for path in (resources.files("stream.console") / "pages").iterdir()
    if path.name.endswith((".js", ".html", ".css", ".svg"))
}
SCRIPTS = {name: text for name, text in PAGES.items() if name.endswith(".js")}


@dataclass
class FakeDesk:
    """Remembers what an operator did; has the releases that a test puts in."""

    done: list[object] = field(default_factory=list)
    releases: dict[str, Release] = field(default_factory=dict)

    def promote(self, release_id: str, force: bool) -> ReleaseNotice:
        if release_id == "refused" and not force:
            raise ReleaseError("release refused was refused; promote it with --force")
        self.done.append((release_id, force))
        return ReleaseNotice(release_id, "serving", 9, "s")

    def rollback(self) -> ReleaseNotice:
        self.done.append("rollback")
        return ReleaseNotice("r1", "serving", 9, "s")

    def open(self, release_id: str) -> Release:
        if release_id not in self.releases:
            raise ReleaseRefused("not-in-store", f"{release_id} is not in 's'")
        return self.releases[release_id]

    def manifest(self, release_id: str) -> Manifest:
        return self.open(release_id).manifest

    async def freeze(self, active: bool, reason: str) -> PolicyOrder:
        if not active:
            raise SettingsError("'freeze:releases' is not in force, so there is nothing to lift")
        self.done.append(("freeze", reason))
        return PolicyOrder("freeze", "releases", active, reason, NOW_S)

    async def send_back(self, which: Which) -> Replayed:
        self.done.append(which)
        return Replayed(len(which.letters or ()), {}, {})


def console_parts(
    desk: FakeDesk, settings: Settings = SETTINGS, signs: Signs | None = None
) -> ConsoleParts:
    """A console on nothing but memory."""
    model, signs = ReadModel(settings), signs or Signs(TOPICS)
    insight = Insight(settings, model, desk.open)
    acts = Acts(desk, desk.freeze, desk.send_back)
    return ConsoleParts(settings, model, signs, Live(signs), insight, acts)


@pytest.fixture
def signs() -> Signs:
    return Signs(TOPICS)


@pytest.fixture
def desk() -> FakeDesk:
    return FakeDesk()


@pytest.fixture
def parts(signs: Signs, desk: FakeDesk) -> ConsoleParts:
    return console_parts(desk, SETTINGS, signs)


@pytest.fixture
def live(parts: ConsoleParts) -> Live:
    return parts.live


@pytest.fixture
def http(parts: ConsoleParts) -> TestClient:
    model = parts.model
    model.take(TOPICS.profiles, [make_record(0, profile_of(["i1"]), user) for user in ("a", "b")])
    router = console_router(parts)
    app = create_app(Parts(SETTINGS, model, FakeClient(), lambda: None), router)
    return TestClient(app, base_url="http://127.0.0.1")


def window(release: str, ended_at: float, events: int, gain: float) -> ConsumerRecord[Any, Any]:
    cells = [OutcomeCell(0, events, 1, gain, gain)]
    return make_record(0, encode(OutcomeWindow(release, "w", ended_at - 2, ended_at, cells)), "r")


def moment(number: int) -> Moment:
    return Moment(Figures(float(number), 1.0, 1.0, 1.0, 0, number, None, None), [])


def test_live_quality_is_that_of_the_last_minute_by_release(signs: Signs) -> None:
    signs.take(
        TOPICS.outcomes,
        [
            window("r1", NOW_S - 300, 100, 99.0),
            window("r1", NOW_S - 30, 10, 1.0),
            window("r2", NOW_S - 20, 40, 8.0),
            window("r3", NOW_S - 20, 5, 5.0),
            window("r1", NOW_S - 10, 10, 3.0),
        ],
    )
    found = {each.release_id: (each.events, each.ndcg10) for each in signs.quality(NOW_S)}
    assert found == {"r1": (20, 0.2), "r2": (40, 0.2)}, "r3 has too few events"


def test_dead_letters_are_told_with_reason_and_payload_and_bounded(
    signs: Signs, http: TestClient
) -> None:
    topic = TOPICS.dlq(TOPICS.events)
    letters = []
    for number in range(LETTERS + 5):
        letter = make_record(number, b"\xff{", "ann", topic)
        letter.headers = (
            ("__connect.errors.topic", TOPICS.events.encode()),
            ("__connect.errors.offset", str(number).encode()),
            ("__connect.errors.exception.class.name", b"malformed"),
            ("__connect.errors.exception.message", b"the message is not JSON"),
        )
        letter.timestamp = number * 1000
        letters.append(letter)
    signs.take(topic, letters)
    told = http.get("/v1/console/dead-letters").json()
    assert told["reasons"] == {"malformed": LETTERS}
    newest = told["letters"][0]
    assert (newest["offset"], newest["topic"]) == (str(LETTERS + 4), TOPICS.events)
    assert (newest["text"], newest["bytes"]) == ("\\xff{", 2)
    assert newest["at_letter"] == {"topic": TOPICS.events, "partition": 0, "offset": LETTERS + 4}


async def test_who_watches_a_user_hears_of_her_alone(signs: Signs) -> None:
    with signs.watching("ann") as news:
        signs.take(TOPICS.recommendations, [make_record(0, b"{}", user) for user in ("bob", "ann")])
        signs.take(TOPICS.profiles, [make_record(0, b"{}", "ann")])
        assert [news.get_nowait() for _ in range(2)] == ["recommendation", "profile"]
        assert news.empty()
        signs.end()
        assert news.get_nowait() == "end"
    signs.take(TOPICS.profiles, [make_record(1, b"{}", "ann")])
    assert news.empty()


def test_latency_is_looked_up_for_the_newest_event_of_each_partition(signs: Signs) -> None:
    def made(cause: str, offset: int, partition: int) -> ConsumerRecord[Any, Any]:
        value = Recommendation("o", "ann", [], "r", "r", 1, cause, "c", partition, offset, 1.0)
        return make_record(0, encode(value), "ann", TOPICS.recommendations, partition)

    records = [made("event", 1, 0), made("event", 2, 0), made("event", 5, 1), made("request", 9, 2)]
    signs.take(TOPICS.recommendations, records)
    produced_ms = int(NOW_S * 1000)
    assert signs.causes() == [Cause(0, 2, produced_ms), Cause(1, 5, produced_ms)]
    assert signs.causes() == []


class FakeKafka:
    """Consumer and admin client in one: two partitions of each topic."""

    def __init__(self) -> None:
        self.ends = {TopicPartition(name, n): 100 for name in ("e", "o") for n in (0, 1)}
        self.committed = 90
        self.at: dict[TopicPartition, int] = {}
        self.open: set[TopicPartition] = set()

    async def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {place: self.ends[place] for place in places}

    async def list_consumer_group_offsets(
        self, group: str, partitions: list[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        return {place: OffsetAndMetadata(self.committed, "") for place in partitions}

    def seek(self, place: TopicPartition, offset: int) -> None:
        self.at[place] = offset

    def resume(self, place: TopicPartition) -> None:
        self.open.add(place)

    def pause(self, place: TopicPartition) -> None:
        self.open.discard(place)

    async def getone(self, place: TopicPartition) -> ConsumerRecord[Any, Any]:
        assert place in self.open
        record = make_record(self.at[place], b"{}", "ann")
        record.timestamp = 1_000
        return record


async def test_figures_come_from_offsets_and_looked_up_events() -> None:
    kafka = FakeKafka()
    gauges = Gauges(kafka, kafka, "group")
    gauges._events = [TopicPartition("e", n) for n in (0, 1)]
    gauges._outputs = [TopicPartition("o", n) for n in (0, 1)]
    figures = await gauges.look([Cause(0, 42, 1_025), Cause(1, 7, 1_003)])
    assert figures is not None
    assert (figures.lag, figures.events, figures.produced_per_s) == (20, 200, 0.0)
    assert (figures.p50_ms, figures.p99_ms) == (25.0, 25.0)
    assert kafka.open == set()


async def test_a_follower_gets_what_was_and_then_each_moment_until_the_end(live: Live) -> None:
    for number in range(KEPT + 3):
        live.add(moment(number))
    following = live.follow()
    first = await anext(following)
    assert [each.figures.events for each in first] == list(range(3, KEPT + 3))
    waiting = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    live.add(moment(999))
    assert [each.figures.events for each in await waiting] == [999]
    live.end()
    with pytest.raises(StopAsyncIteration):
        await anext(following)


def test_streams_are_server_sent_events_and_end_with_the_process(
    http: TestClient, live: Live, signs: Signs
) -> None:
    live.add(moment(1))
    live.end()
    streamed = http.get("/v1/console/live")
    assert streamed.headers["content-type"].startswith("text/event-stream")
    event, data = streamed.text.splitlines()[:2]
    assert event == "event: moments"
    assert json.loads(data.removeprefix("data: "))[0]["figures"]["events"] == 1
    assert "event: watching" in http.get("/v1/console/watch/ann").text


def test_releases_are_promoted_and_rolled_back_as_on_the_command_line(
    http: TestClient, desk: FakeDesk
) -> None:
    assert http.post("/v1/console/promote", json={"release_id": "r2"}).json()["release_id"] == "r2"
    refused = http.post("/v1/console/promote", json={"release_id": "refused"})
    assert (refused.status_code, refused.json()["error"]) == (409, "release")
    assert http.post("/v1/console/rollback", json={}).status_code == 200
    assert desk.done == [("r2", False), "rollback"]
    # A form of another site can send no JSON without asking first.
    assert http.post("/v1/console/rollback").status_code == 415


def test_promotions_are_frozen_with_a_reason_and_nothing_is_lifted_twice(
    http: TestClient, desk: FakeDesk
) -> None:
    frozen = http.post("/v1/console/freeze", json={"active": True, "reason": "incident 12"})
    assert (frozen.json()["kind"], frozen.json()["reason"]) == ("freeze", "incident 12")
    assert desk.done == [("freeze", "incident 12")]
    lifted = http.post("/v1/console/freeze", json={"active": False})
    assert (lifted.status_code, lifted.json()["error"]) == (409, "settings")


def test_dead_letters_are_sent_back_by_where_they_stand(http: TestClient, desk: FakeDesk) -> None:
    places = [{"topic": TOPICS.events, "partition": 1, "offset": n} for n in (4, 9)]
    done = http.post("/v1/console/dead-letters/replay", json={"letters": [*places, places[0]]})
    assert done.json()["total"] == 2
    wanted = frozenset(LetterAt(TOPICS.events, 1, n) for n in (4, 9))
    assert desk.done == [Which(letters=wanted)]
    for bad in ([], [{"topic": TOPICS.events, "partition": -1, "offset": 0}]):
        refused = http.post("/v1/console/dead-letters/replay", json={"letters": bad})
        assert refused.status_code == 422


@pytest.mark.parametrize("path", ["promote", "rollback", "freeze", "dead-letters/replay"])
def test_what_an_operator_may_do_needs_the_token_and_no_other_origin(path: str) -> None:
    desk = FakeDesk()
    settings = with_api(SETTINGS, TOKEN)
    parts = console_parts(desk, settings)
    api = Parts(settings, parts.model, FakeClient(), lambda: None)
    http = TestClient(create_app(api, console_router(parts)), base_url="http://127.0.0.1")
    url, token = f"/v1/console/{path}", {"authorization": f"Bearer {TOKEN}"}
    assert http.post(url, json={}).status_code == 401
    foreign = {**token, "origin": "https://evil.example"}
    assert http.post(url, json={}, headers=foreign).status_code == 403
    # Let through, and only then looked at.
    assert http.post(url, content="x", headers=token).status_code == 415
    assert desk.done == []


def test_the_matrix_is_told_with_the_names_of_its_rows_and_bounded(
    http: TestClient, parts: ConsoleParts, desk: FakeDesk
) -> None:
    def told(periods: int) -> dict[str, Any]:
        matrix = [[-1.0] + [0.1] * row for row in range(periods)]
        release = make_release(make_items(3), seed=periods)
        manifest = msgspec.structs.replace(
            release.manifest, forgetting=matrix, parent_id=f"r{periods - 1}"
        )
        desk.releases["now"] = dataclasses.replace(release, manifest=manifest)
        found: dict[str, Any] = http.get("/v1/console/forgetting/now").json()
        return found

    notices = [ReleaseNotice(f"r{n}", "retired", n, "s", f"r{n - 1}") for n in range(1, 40)]
    parts.model.take(TOPICS.releases, [make_record(0, encode(n), n.release_id) for n in notices])
    assert told(0)["matrix"] == []
    few = told(3)
    assert few["releases"] == ["r1", "r2", few["release_id"]]
    assert (few["first_period"], few["matrix"][2]) == (1, [None, 0.1, 0.1])
    many = told(40)
    assert (len(many["matrix"]), len(many["matrix"][-1])) == (MATRIX, MATRIX)
    assert (many["first_period"], many["releases"][-2]) == (40 - MATRIX + 1, "r39")
    assert http.get("/v1/console/forgetting/gone").status_code == 409


def test_the_console_tells_what_its_pages_need(http: TestClient) -> None:
    assert http.get("/v1/console/about").json()["actions"]["dislike"] == -1.0
    assert http.get("/v1/console/users").json() == {"users": ["b", "a"]}
    assert "/v1/console" not in json.dumps(http.get("/openapi.json").json()["paths"])


def test_pages_are_files_of_the_package_and_nothing_else(http: TestClient) -> None:
    assert "<main" in http.get("/").text
    for name in PAGES:
        assert http.get(f"/static/{name}").status_code == 200, name
    for name in ("nothing.js", "..%2Froutes.py", "..%2F..%2Fcli.py"):
        assert http.get(f"/static/{name}").status_code == 404


def test_no_page_loads_anything_from_elsewhere_or_makes_html_of_text() -> None:
    for name, text in PAGES.items():
        links = set(re.findall(r"https?://[^\s\"'`)]+", text)) - {"http://www.w3.org/2000/svg"}
        assert links == set(), name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
        assert not re.search(r"<script(?![^>]*src=)|\son[a-z]+=|\sstyle=", text), name


def test_every_word_of_the_pages_is_there_in_both_languages() -> None:
    words = dict(
        re.findall(r'(\w+): \[("(?:[^"\\]|\\.)*", "(?:[^"\\]|\\.)*")\]', SCRIPTS["words.js"])
    )
    for name, text in words.items():
        english, chinese = json.loads(f"[{text}]")
        assert english.count("{}") == chinese.count("{}"), name
    used = {
        key
        for text in PAGES.values()
        for pattern in (
            r'\bt\("(\w+)"',
            r'data-(?:say|label)="(\w+)"',
            r'(?:line|fact|tile)\("(\w+)"',
        )
        for key in re.findall(pattern, text)
    }
    assert used - set(words) == set()
    assert len(words) > 60
