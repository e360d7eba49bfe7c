"""Traces through Kafka: from the headers of what comes in to those of what goes out.

A record that carries a `traceparent` gets a span of its own, a child of its sender's, from the
beginning of the round to Kafka's acknowledgement; the recommendation carries that span on.  The
round links to the traces that it serves and belongs to none of them: it has many.  Only called
while traces are on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from profiles.tracing import HEADER, MOST_LINKS, NO_SPAN, Span, Traces, is_traceparent
from stream.chunks import Chunk, Parsed
from stream.publisher import Message, Sent


def traceparent_of(record: Parsed) -> str | None:
    """What a record's headers carry; None for nothing, and for what is malformed."""
    for name, value in record.headers:
        if name == HEADER:
            text = value.decode("latin-1")
            return text if is_traceparent(text) else None
    return None


def parents_of(records: Iterable[Parsed]) -> dict[bytes, str]:
    """The traceparent of each key's last record that has one."""
    return {
        record.key: parent
        for record in records
        if record.key is not None and (parent := traceparent_of(record)) is not None
    }


def start_round(traces: Traces, name: str, chunks: Sequence[Chunk]) -> Span:
    """The span of what is taken together, linked to the traces that its records came with."""
    links: list[str] = []
    for chunk in chunks:
        for record in chunk.records:
            parent = traceparent_of(record) if len(links) < MOST_LINKS else None
            if parent is not None:
                links.append(parent)
    records = sum(len(chunk.records) for chunk in chunks)
    return traces.start(name, links=links, records=records, partitions=len(chunks))


def carried_on(
    traces: Traces, around: Span, chunk: Chunk, outputs: Sequence[Message], sent: Sent
) -> list[Message]:
    """Outputs with a traceparent each: of a span below its record's, else of the round's.

    The spans end when Kafka has acknowledged `sent`.  Outputs of no round (the tombstones of an
    erasure) stay as they are.
    """
    if around is NO_SPAN:
        return list(outputs)
    parents = parents_of(chunk.records)
    spans: list[Span] = []
    carried: list[Message] = []
    for message in outputs:
        parent = parents.get(message.key) if message.key is not None else None
        own = around
        if parent is not None:
            own = traces.start(
                "driftline.recommend",
                parent,
                [around.traceparent],
                topic=chunk.topic,
                partition=chunk.partition,
            )
            spans.append(own)
        header = (HEADER, own.traceparent.encode())
        carried.append(Message(message.key, message.value, [*message.headers, header]))
    sent.spans = (*sent.spans, *spans)
    return carried
