"""How connections of aiokafka end under uvloop: two things that asyncio's own loop does better.

A broken connection is a `KafkaConnectionError`.  asyncio's transports take a write after the other
side has gone and say nothing; uvloop's raise `RuntimeError: ... the handler is closed`, which
aiokafka (0.14, `AIOKafkaConnection.send`) takes for no connection error.  A broker killed at that
moment ended the worker that asked it something, once in some tens of kills.  So what aiokafka does
with an `OSError` there is done with this, too: the connection is closed, whoever asked tries again.

And a connection that is closed ends within `CLOSED_WITHIN_S`.  Over TLS both sides say goodbye, and
whoever closes waits for the other's: under uvloop (0.23) in 1 to 2% of all cases until its limit of
30 s, which aiokafka waits for in turn.  A partition took that long to open, and a worker's stop was
cut off.  Kafka's messages tell their own length and whatever was to be acknowledged is by then, so
nothing depends on that goodbye.
"""

from __future__ import annotations

from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

CLOSED_WITHIN_S = 1.0
_SENDING = ("send", "_send_sasl_token")


def hear_of_closed_transports() -> None:
    """For every connection of this process; once is enough, more do no harm."""
    for name in _SENDING:
        _put_around(name, _hearing)
    _put_around("close", _closing)


# Any, here and below: aiokafka is untyped.
def _put_around(name: str, wrap: Any) -> None:
    plain = getattr(AIOKafkaConnection, name)
    if not getattr(plain, "hears", False):
        around = wrap(plain)
        around.hears = True  # so that it is not put on twice
        setattr(AIOKafkaConnection, name, around)


def _hearing(plain: Any) -> Any:
    def send(connection: AIOKafkaConnection, *args: Any, **named: Any) -> Any:
        try:
            return plain(connection, *args, **named)
        except RuntimeError as error:
            if "closed" not in str(error):
                raise
            connection.close(reason=CloseReason.CONNECTION_BROKEN, exc=error)
            raise KafkaConnectionError(
                f"Connection at {connection.host}:{connection.port} broken: {error}"
            ) from error

    return send


def _closing(plain: Any) -> Any:
    def close(connection: AIOKafkaConnection, *args: Any, **named: Any) -> Any:
        writer = connection._writer
        closed = plain(connection, *args, **named)
        # None where it never was connected; done where it had ended already.
        if writer is not None and closed is not None and not closed.done():
            cut = connection._loop.call_later(CLOSED_WITHIN_S, writer.transport.abort)
            closed.add_done_callback(lambda _: cut.cancel())
        return closed

    return close
