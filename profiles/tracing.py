"""Spans by OpenTelemetry, or nothing at all: everybody who traces asks a `Traces` for spans.

Without an endpoint that is `NO_TRACES`, whose `is_on` is false: OpenTelemetry is not imported, and
who would have to gather something for a span (links, headers) looks at `is_on` first.  With one,
spans go to the collector from a thread of their own, through a bounded queue that drops what does
not fit: a collector that is slow or away costs spans, never the stream.

What surprised us: the exporter tells of every failed batch with a trace in the log, and a shutdown
waits for it through all its retries, longer than a worker may take to stop.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias, cast

from profiles.errors import SettingsError
from profiles.logs import get_logger
from profiles.settings.observability import ObservabilitySettings

log = get_logger("profiles.tracing")

HEADER = "traceparent"
"""Of Kafka records and HTTP requests (W3C Trace Context)."""
MOST_LINKS = 32
"""Of one span: a round may have thousands of events."""
QUEUE_SPANS = 2_048
EXPORT_S = 5.0
CLOSE_WITHIN_S = 3.0

Fact: TypeAlias = str | int | float | bool
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Span(Protocol):
    """Something that takes time.  `traceparent` lets others go on from it; empty without a trace.

    No fact names a user or an item.
    """

    @property
    def traceparent(self) -> str: ...
    def note(self, **facts: Fact) -> None:
        """Add facts."""

    def end(self, error: BaseException | None = None) -> None:
        """It is over; what goes wrong with it afterwards is no part of it."""


class Traces(Protocol):
    """Makes spans."""

    is_on: bool

    def start(
        self, name: str, parent: str | None = None, links: Sequence[str] = (), **facts: Fact
    ) -> Span:
        """Begin a span that the caller ends.

        `parent` and `links` are traceparents; one that is malformed counts as none.  Without a
        parent it belongs to the span that is open around it, if one is.
        """

    def span(self, name: str, parent: str | None = None, **facts: Fact) -> Any:
        """The same as a context manager: open around whatever is started inside it."""

    def close(self) -> None:
        """Send what waits, for `CLOSE_WITHIN_S` at most."""


class _NoSpan:
    traceparent = ""

    def note(self, **facts: Fact) -> None:
        pass

    def end(self, error: BaseException | None = None) -> None:
        pass

    def __enter__(self) -> Span:
        return self

    def __exit__(self, *_: object) -> None:
        pass


_NO_SPAN = _NoSpan()
NO_SPAN: Span = _NO_SPAN


class _NoTraces:
    is_on = False

    def start(
        self, name: str, parent: str | None = None, links: Sequence[str] = (), **facts: Fact
    ) -> Span:
        return NO_SPAN

    def span(self, name: str, parent: str | None = None, **facts: Fact) -> _NoSpan:
        return _NO_SPAN

    def close(self) -> None:
        pass


NO_TRACES: Traces = _NoTraces()


def open_traces(settings: ObservabilitySettings, process: str) -> Traces:
    """What the settings ask for; `process` is what it is called (`driftline-worker`).

    Raises: SettingsError when the extra is not installed.
    """
    if settings.otlp_endpoint is None:
        return NO_TRACES
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise SettingsError(
            f"observability.otlp_endpoint={settings.otlp_endpoint!r} needs OpenTelemetry: "
            "install the extra driftline[traces], or leave the endpoint out"
        ) from error
    # It would tell of every failed batch; `_Exporter` tells when that begins and ends.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    exporter = OTLPSpanExporter(endpoint=settings.otlp_endpoint, timeout=EXPORT_S)
    return OtlpTraces(exporter, process, settings.trace_share)


class OtlpTraces:
    """Spans to an exporter of OpenTelemetry's (Any: the package is optional)."""

    is_on = True

    def __init__(self, exporter: Any, process: str, share: float) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

        self._provider = TracerProvider(
            # A trace that came from elsewhere was sampled there, or not.
            sampler=ParentBased(TraceIdRatioBased(share)),
            resource=Resource.create({"service.name": process}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(cast(Any, _Exporter(exporter)), max_queue_size=QUEUE_SPANS)
        )
        self._tracer = self._provider.get_tracer("driftline")

    def start(
        self, name: str, parent: str | None = None, links: Sequence[str] = (), **facts: Fact
    ) -> Span:
        """As `Traces` says."""
        from opentelemetry.trace import Link, get_current_span

        linked = [
            Link(get_current_span(context).get_span_context())
            for traceparent in links[:MOST_LINKS]
            if (context := _context(traceparent)) is not None
        ]
        begun = self._tracer.start_span(name, _context(parent), links=linked, attributes=facts)
        return _OtlpSpan(begun)

    @contextmanager
    def span(self, name: str, parent: str | None = None, **facts: Fact) -> Iterator[Span]:
        """As `Traces` says."""
        with self._tracer.start_as_current_span(name, _context(parent), attributes=facts) as begun:
            yield _OtlpSpan(begun)

    def close(self) -> None:
        """As `Traces` says."""
        # A daemon: a collector that does not answer must not keep the process.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True, name="traces")
        closing.start()
        closing.join(CLOSE_WITHIN_S)


class _OtlpSpan:
    def __init__(self, begun: Any) -> None:  # Any: OpenTelemetry's
        self._span = begun

    @property
    def traceparent(self) -> str:
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def note(self, **facts: Fact) -> None:
        self._span.set_attributes(facts)

    def end(self, error: BaseException | None = None) -> None:
        if error is not None:
            from opentelemetry.trace import StatusCode

            self._span.set_status(StatusCode.ERROR, type(error).__name__)
        self._span.end()


class _Exporter:
    """Passes batches on, and tells once when that stops working and once when it works again."""

    def __init__(self, exporter: Any) -> None:  # Any: OpenTelemetry's
        self._exporter = exporter
        self._works = True

    def export(self, spans: Sequence[Any]) -> Any:
        from opentelemetry.sdk.trace.export import SpanExportResult

        try:
            result = self._exporter.export(spans)
            why = "not accepted"
        except Exception as error:  # whatever it is, spans are all that may be lost by it
            result, why = SpanExportResult.FAILURE, repr(error)
        works = result is SpanExportResult.SUCCESS
        if works != self._works:
            self._works = works
            if works:
                log.info("traces are delivered again")
            else:
                log.warning("traces are not delivered and are dropped", error=why)
        return result

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return bool(self._exporter.force_flush(timeout_millis))

    def shutdown(self) -> None:
        self._exporter.shutdown()


def current_headers() -> list[tuple[str, bytes]]:
    """The header of a Kafka record sent inside a span, whoever opened it; none outside."""
    # Not imported: then nobody has opened one.
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return []
    current = trace.get_current_span()
    if not current.get_span_context().is_valid:
        return []
    return [(HEADER, _OtlpSpan(current).traceparent.encode())]


def _context(traceparent: str | None) -> Any:  # Any: OpenTelemetry's context, or None
    if traceparent is None or not is_traceparent(traceparent):
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({HEADER: traceparent})


def is_traceparent(text: str) -> bool:
    """Whether a text has the form of W3C's traceparent.

    >>> is_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    True
    >>> is_traceparent("00-nonsense")
    False
    """
    return _TRACEPARENT.fullmatch(text) is not None
