"""uvloop's word for a broken connection reaches aiokafka as one."""

from __future__ import annotations

import asyncio

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError

from stream.closed_transports import hear_of_closed_transports

pytestmark = pytest.mark.unit


class _Request:
    """What `send` needs of a request."""

    def prepare(self, versions: object) -> _Request:
        return self

    def build_request_header(self, **named: object) -> _Request:
        return self

    def encode(self) -> bytes:
        return b"anybody there?"


async def _ask_after_the_end() -> None:
    """Ask over a connection whose transport is closed."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    connection = AIOKafkaConnection(host, port)
    connection._reader, connection._writer = await asyncio.open_connection(host, port)
    connection._read_task = asyncio.create_task(connection._reader.read())
    await connection._read_task
    connection._writer.transport.abort()
    await asyncio.sleep(0)  # where it is closed
    server.close()
    await server.wait_closed()
    try:
        connection.send(_Request())
    finally:
        assert not connection.connected(), "whoever asks next opens another one"


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_write_to_a_closed_transport_is_a_connection_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("send", "_send_sasl_token"):
        plain = getattr(AIOKafkaConnection, name)
        monkeypatch.setattr(AIOKafkaConnection, name, plain)  # as it was, afterwards
    with pytest.raises(RuntimeError, match="handler is closed"):
        uvloop.run(_ask_after_the_end())
    hear_of_closed_transports()
    once = AIOKafkaConnection.send
    hear_of_closed_transports()
    assert AIOKafkaConnection.send is once
    with pytest.raises(KafkaConnectionError, match="handler is closed"):
        uvloop.run(_ask_after_the_end())
