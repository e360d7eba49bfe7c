"""Spans: off imports nothing; on, traces go through; a bad collector harms nobody."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from aiokafka.errors import KafkaConnectionError
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.testclient import TestClient

from profiles.config import load_settings
from profiles.errors import BrokerError, SettingsError
from profiles.settings.observability import ObservabilitySettings
from profiles.tracing import (
    CLOSE_WITHIN_S,
    HEADER,
    MOST_LINKS,
    NO_SPAN,
    NO_TRACES,
    OtlpTraces,
    current_headers,
    is_traceparent,
    open_traces,
)
from stream.api.traced import Traced
from stream.chunks import Chunk
from stream.publisher import Message, Sent
from stream.tracing import carried_on, parents_of, start_round

pytestmark = pytest.mark.unit

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


class Collected:
    """Traces into memory."""

    def __init__(self, share: float = 1.0) -> None:
        self.exporter = InMemorySpanExporter()
        self.traces = OtlpTraces(self.exporter, "driftline-test", share)

    def spans(self) -> dict[str, ReadableSpan]:
        self.traces._provider.force_flush()
        return {span.name: span for span in self.exporter.get_finished_spans()}


def record(key: bytes, offset: int, traceparent: str | None = None) -> SimpleNamespace:
    headers = [] if traceparent is None else [(HEADER, traceparent.encode())]
    return SimpleNamespace(key=key, value=b"{}", offset=offset, timestamp=0, headers=headers)


def chunk(*records: SimpleNamespace) -> Chunk:
    return Chunk("events", 2, records, records[-1].offset + 1)


def trace_id(traceparent: str) -> str:
    return traceparent.split("-")[1]


def sent_header(message: Message) -> str:
    (value,) = [value for name, value in message.headers if name == HEADER]
    return value.decode()


def test_without_an_endpoint_there_are_no_traces_and_opentelemetry_is_not_imported() -> None:
    assert open_traces(load_settings().observability, "driftline-test") is NO_TRACES
    program = (
        "import sys, stream.app, learner.service, profiles.tracing as t\n"
        "t.NO_TRACES.start('x').end(); t.current_headers()\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_no_traces_take_every_call_and_leave_nothing() -> None:
    with NO_TRACES.span("a", CALLER, fact=1) as span:
        span.note(more=2)
        assert span.traceparent == ""
        assert current_headers() == []
    NO_TRACES.start("b", links=[CALLER]).end(ValueError())
    NO_TRACES.close()


def test_an_endpoint_without_the_extra_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
    monkeypatch.setitem(sys.modules, name, None)
    settings = ObservabilitySettings(otlp_endpoint="http://127.0.0.1:1/v1/traces")
    with pytest.raises(SettingsError, match=r"driftline\[traces\]"):
        open_traces(settings, "driftline-test")


def test_an_endpoint_that_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_OBSERVABILITY__OTLP_ENDPOINT", "collector:4318")
    with pytest.raises(SettingsError, match="otlp_endpoint"):
        load_settings()


def test_a_recommendation_goes_on_from_its_event_and_others_from_the_round() -> None:
    collected = Collected()
    events = chunk(record(b"ann", 1), record(b"ann", 2, CALLER), record(b"ben", 3))
    around = start_round(collected.traces, "driftline.round", [events])
    sent = Sent()
    of_ann, of_ben = carried_on(
        collected.traces, around, events, [Message(b"ann", b"a"), Message(b"ben", b"b")], sent
    )
    assert (of_ann.value, of_ben.value) == (b"a", b"b")
    assert trace_id(sent_header(of_ann)) == trace_id(CALLER)
    assert sent_header(of_ann) != CALLER
    assert sent_header(of_ben) == around.traceparent
    # Its span lasts until Kafka has it; the round, as long as the caller says.
    assert collected.spans() == {}
    for span in sent.spans:
        span.end()
    around.end()
    spans = collected.spans()
    own, whole = spans["driftline.recommend"], spans["driftline.round"]
    assert own.parent is not None
    assert f"{own.parent.span_id:016x}" == CALLER.split("-")[2]
    assert [f"{link.context.trace_id:032x}" for link in own.links] == [trace_id(around.traceparent)]
    assert [f"{link.context.trace_id:032x}" for link in whole.links] == [trace_id(CALLER)]
    assert dict(whole.attributes or {}) == {"records": 3, "partitions": 1}


async def test_spans_end_with_the_acknowledgement_or_with_the_reason_that_there_is_none() -> None:
    collected = Collected()
    await Sent(spans=(collected.traces.start("taken"),)).acknowledged()
    refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    refused.set_exception(KafkaConnectionError("gone"))
    sent = Sent([("events", 0, 1, refused)], spans=(collected.traces.start("refused"),))
    with pytest.raises(BrokerError):
        await sent.acknowledged()
    spans = collected.spans()
    assert spans["taken"].status.is_unset
    assert not spans["refused"].status.is_ok
    assert spans["refused"].status.description == "BrokerError"


def test_a_trace_that_was_not_sampled_is_carried_on_and_not_recorded() -> None:
    collected = Collected()
    events = chunk(record(b"ann", 1, UNSAMPLED))
    around = start_round(collected.traces, "driftline.round", [events])
    sent = Sent()
    (message,) = carried_on(collected.traces, around, events, [Message(b"ann", b"a")], sent)
    assert trace_id(sent_header(message)) == trace_id(UNSAMPLED)
    assert sent_header(message).endswith("-00")
    for span in sent.spans:
        span.end()
    assert "driftline.recommend" not in collected.spans()


def test_outputs_of_no_round_carry_nothing() -> None:
    collected, sent = Collected(), Sent()
    tombstone = Message(b"ann", None)
    events = chunk(record(b"ann", 1, CALLER))
    assert carried_on(collected.traces, NO_SPAN, events, [tombstone], sent) == [tombstone]
    assert sent.spans == ()


@pytest.mark.parametrize("bad", ["", "00-zz", CALLER[:-1], CALLER + "0", "\xff" * 55])
def test_a_malformed_header_counts_as_none(bad: str) -> None:
    assert not is_traceparent(bad)
    headers = [(HEADER, bad.encode("latin-1"))]
    odd = SimpleNamespace(key=b"ann", value=b"", offset=1, timestamp=0, headers=headers)
    assert parents_of([odd]) == {}


def test_a_round_links_to_so_many_traces_at_most() -> None:
    collected = Collected()
    events = chunk(*(record(b"u", at, CALLER) for at in range(3 * MOST_LINKS)))
    start_round(collected.traces, "driftline.round", [events]).end()
    assert len(collected.spans()["driftline.round"].links) == MOST_LINKS


def test_a_share_of_nothing_records_nothing_that_did_not_come_with_a_trace() -> None:
    collected = Collected(share=0.0)
    collected.traces.start("driftline.round").end()
    collected.traces.start("driftline.recommend", CALLER).end()
    assert collected.spans().keys() == {"driftline.recommend"}


def test_a_request_is_a_span_below_its_callers_and_what_it_sends_carries_it() -> None:
    collected = Collected()
    carried: list[list[tuple[str, bytes]]] = []

    async def app(scope: dict[str, object], receive: object, send: object) -> None:
        carried.append(current_headers())
        scope["route"] = SimpleNamespace(path="/v1/profiles/{user}")
        await send({"type": "http.response.start", "status": 404, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b""})  # type: ignore[operator]

    http = TestClient(Traced(app, collected.traces))  # type: ignore[arg-type]
    http.get("/v1/profiles/alice", headers={HEADER: CALLER})
    http.get("/livez")
    span = collected.spans()["driftline.http"]
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == trace_id(CALLER)
    ((_, header),), nothing = carried
    assert header.decode().split("-")[2] == f"{span.context.span_id:016x}"
    assert nothing == []
    attributes = dict(span.attributes or {})
    assert attributes == {"method": "GET", "route": "/v1/profiles/{user}", "status": 404}
    assert "alice" not in str(attributes)


def test_a_collector_that_never_answers_costs_spans_and_does_not_hold_up_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        program = (
            "from profiles.settings.observability import ObservabilitySettings as S\n"
            "from profiles.tracing import open_traces\n"
            f"t = open_traces(S(otlp_endpoint='http://127.0.0.1:{port}/v1/traces', "
            "trace_share=1.0), 'x')\n"
            "for _ in range(5000): t.start('driftline.round').end()\n"
            "t.close(); print('over')"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=CLOSE_WITHIN_S + 100,  # it would hang for ever; imports take long here
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, "over\n"), done.stderr
