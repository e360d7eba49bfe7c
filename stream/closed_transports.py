"""A broken connection is a `KafkaConnectionError`, under uvloop too.

asyncio's own transports take a write after the other side has gone and say nothing; uvloop's raise
`RuntimeError: ... the handler is closed`, which aiokafka (0.14, `AIOKafkaConnection.send`) takes
for no connection error.  A broker killed at that moment ended the worker that asked it something,
once in some tens of kills.  So what aiokafka does with an `OSError` there is done with this, too:
the connection is closed, whoever asked tries again.
"""

from __future__ import annotations

from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

_SENDING = ("send", "_send_sasl_token")


def hear_of_closed_transports() -> None:
    """For every connection of this process; once is enough, more do no harm."""
    for name in _SENDING:
        plain = getattr(AIOKafkaConnection, name)
        if not getattr(plain, "hears", False):
            setattr(AIOKafkaConnection, name, _hearing(plain))


# Any: aiokafka is untyped.
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

    send.hears = True  # type: ignore[attr-defined]  # so that it is not put on twice
    return send
