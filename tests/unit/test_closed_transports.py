"""uvloop's word for a broken connection reaches aiokafka as one, and a closed one ends."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection, AIOKafkaProtocol
from aiokafka.errors import KafkaConnectionError

from stream import closed_transports
from stream.closed_transports import hear_of_closed_transports
from tests.certificates import Authority

pytestmark = pytest.mark.unit
FOR_EVER_S = 3_600.0


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


@pytest.fixture
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiokafka's connection is put back afterwards."""
    for name in ("send", "_send_sasl_token", "close"):
        monkeypatch.setattr(AIOKafkaConnection, name, getattr(AIOKafkaConnection, name))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("as_it_was")
def test_a_write_to_a_closed_transport_is_a_connection_error() -> None:
    with pytest.raises(RuntimeError, match="handler is closed"):
        uvloop.run(_ask_after_the_end())
    hear_of_closed_transports()
    once = AIOKafkaConnection.send
    hear_of_closed_transports()
    assert AIOKafkaConnection.send is once
    with pytest.raises(KafkaConnectionError, match="handler is closed"):
        uvloop.run(_ask_after_the_end())


async def _close_unanswered(authority: Authority) -> None:
    """Close a connection over TLS whose other side never says goodbye."""
    trusted = ssl.create_default_context(cafile=str(authority.file))
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(authority.chain("broker"))
    held: list[ssl.SSLSocket] = []

    def shake_hands(listener: socket.socket) -> None:
        plain, _ = listener.accept()
        held.append(own.wrap_socket(plain, server_side=True))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()[:2]
        shaking = asyncio.create_task(asyncio.to_thread(shake_hands, listener))
        connection = AIOKafkaConnection(host, port)
        connection._closed_fut = asyncio.get_running_loop().create_future()
        reader = asyncio.StreamReader()
        protocol = AIOKafkaProtocol(connection._closed_fut, reader, loop=connection._loop)
        transport, _ = await connection._loop.create_connection(
            lambda: protocol, host, port, ssl=trusted, ssl_shutdown_timeout=FOR_EVER_S
        )
        await shaking
        connection._reader = reader
        connection._writer = asyncio.StreamWriter(transport, protocol, reader, connection._loop)
        connection._read_task = asyncio.create_task(reader.read())
        await connection.close()
        held[0].close()


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("as_it_was")
def test_a_connection_over_tls_is_closed_though_nobody_says_goodbye(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(closed_transports, "CLOSED_WITHIN_S", 0.05)
    hear_of_closed_transports()
    uvloop.run(_close_unanswered(Authority(tmp_path)))
