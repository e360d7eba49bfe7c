"""A worker with traces on: a trace goes through Kafka, and a bad collector harms nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from profiles.answers import Request
from profiles.tracing import HEADER, is_traceparent
from profiles.wire import encode
from tests.deployment import WAIT_S, Deployment, make_events, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ASKER = "00-1af7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01"


@dataclass(slots=True)
class Collector:
    """What an OTLP collector on loopback was sent: name -> trace ids.  It may refuse everything."""

    refuses: bool = True
    refused: int = 0
    spans: dict[str, set[str]] = field(default_factory=dict)
    port: int = 0

    def take(self, body: bytes) -> int:
        """Returns: the status to answer with."""
        if self.refuses:
            self.refused += 1
            return 400  # not tried again
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.setdefault(span.name, set()).add(span.trace_id.hex())
        return 200


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                import gzip

                body = gzip.decompress(body)
            self.send_response(collector.take(body))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # Any: the base class's own
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


def carried(deployment: Deployment) -> dict[tuple[str, str], str]:
    """The traceparent of the recommendations by user and kind of cause."""
    found = {}
    for record in deployment.read(deployment.topics.recommendations):
        headers = dict(record.headers)
        kind = "request" if b'"cause":"request"' in record.value else "event"
        found[record.key.decode(), kind] = headers[HEADER].decode()
    return found


def test_a_callers_trace_reaches_the_recommendation_and_a_bad_collector_harms_nothing(
    deployment: Deployment,
) -> None:
    with collecting() as collector:
        worker = deployment.start_worker(
            DRIFTLINE_OBSERVABILITY__OTLP_ENDPOINT=f"http://127.0.0.1:{collector.port}/v1/traces",
            DRIFTLINE_OBSERVABILITY__TRACE_SHARE="1.0",
        )
        worker.wait_ready()
        # The collector refuses every batch; nothing else takes notice.
        deployment.send_events(make_events(users=4, each=5))
        deployment.wait_applied(20)
        wait_until("a batch refused", lambda: collector.refused > 0, within_s=2 * WAIT_S)
        assert worker.still_serves()
        collector.refuses = False

        topics = deployment.topics
        (event,) = make_events(users=1, each=1, name="traced", start=9)
        deployment.producer.send(
            topics.events,
            key=event.user_id.encode(),
            value=encode(event),
            headers=[(HEADER, CALLER.encode())],
        ).get(10)
        deployment.producer.send(
            topics.requests,
            key=b"user-1",
            value=encode(Request("asked", "user-1")),
            headers=[(HEADER, ASKER.encode())],
        ).get(10)
        deployment.announce(deployment.new_release(seed=5))

        own, asked = CALLER.split("-")[1], ASKER.split("-")[1]
        wanted = {"driftline.round", "driftline.apply", "driftline.requests", "driftline.swap"}
        wanted |= {f"driftline.swap.{phase}" for phase in ("fetch", "verify", "load", "flip")}
        wait_until(
            "the spans",
            lambda: (
                wanted <= collector.spans.keys()
                and {own, asked} <= collector.spans.get("driftline.recommend", set())
            ),
            within_s=3 * WAIT_S,
        )
        # One trace from the caller to the recommendation; rounds are traces of their own.
        headers = carried(deployment)
        assert headers["user-0", "event"].split("-")[1] == own
        assert headers["user-1", "request"].split("-")[1] == asked
        assert all(is_traceparent(header) for header in headers.values())
        assert own not in collector.spans["driftline.round"]
        assert worker.text.count("traces are not delivered") == 1
        assert "traces are delivered again" in worker.text
        # Refused again: it does not hold up the end.
        collector.refuses = True
        deployment.send_events(make_events(users=4, each=1, name="last", start=20))
        assert worker.stop() == 0
