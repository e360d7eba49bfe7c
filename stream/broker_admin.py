"""A connection for what is asked of the broker itself: topics, offsets, members of a group.

One that answers in seconds or says why not, also where nothing listens or something else does.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaConfigurationError, KafkaError
from kafka.net.compat import KafkaNetClient

from profiles.errors import BrokerError

# The promise is an answer within 10 s, even from a machine that is not there.
TIMEOUT_S = 9.0
RETRY_PAUSE_S = 0.1

Answer = TypeVar("Answer")


# Any, here and below: kafka-python has no type information.
def until_answered(ask: Callable[[], Answer], timeout_s: float) -> Answer:
    """What `ask` returns, asked again while Kafka says that it may be.

    The first group on a new broker waits until the topic of the offsets was made.
    Raises: KafkaError.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return ask()
        except KafkaError as error:
            if not error.retriable or time.monotonic() > deadline:
                raise
            time.sleep(RETRY_PAUSE_S)


@contextmanager
def admin_client(
    bootstrap: str, timeout_s: float, client_options: Mapping[str, object] | None
) -> Iterator[Any]:
    """A connected `KafkaAdminClient`, whose errors come out as BrokerError."""
    addresses = [address.strip() for address in bootstrap.split(",")]
    deadline = time.monotonic() + timeout_s
    # kafka-python leaves a socket open for every connection that is refused: let ours be refused.
    while not any(_accepts(address, deadline) for address in addresses):
        if time.monotonic() + RETRY_PAUSE_S > deadline:
            raise BrokerError(
                f"no Kafka answered at {bootstrap} within {timeout_s:g} s; check "
                "DRIFTLINE_BROKER__BOOTSTRAP, or start one with `driftline broker`"
            )
        time.sleep(RETRY_PAUSE_S)
    timeout_ms = max(1, int((deadline - time.monotonic()) * 1000))
    made: list[Any] = []

    def make_client(**options: Any) -> Any:
        made.append(KafkaNetClient(**options))
        return made[0]

    options: dict[str, object] = {
        "bootstrap_servers": addresses,
        "bootstrap_timeout_ms": timeout_ms,
        "request_timeout_ms": int(timeout_s * 1000),
        "reconnect_backoff_max_ms": 500,
        "kafka_client": make_client,
        **(client_options or {}),
    }
    try:
        admin = KafkaAdminClient(**options)
    except (KafkaConfigurationError, ValueError) as error:
        raise BrokerError(
            f"cannot connect to Kafka at {bootstrap!r}: {error}; check the broker settings"
        ) from error
    except KafkaError as error:
        # Its constructor leaves its thread and sockets behind when it fails.
        for client in made:
            client.close()
            client._manager._net.stop()
        raise BrokerError(
            f"{bootstrap} accepts connections, but no Kafka answered within {timeout_s:g} s; check "
            "that it is Kafka, and the security protocol, user, password and certificates"
        ) from error
    try:
        yield admin
    except KafkaError as error:
        raise BrokerError(
            f"Kafka at {bootstrap} did not do what was asked: {error}; look at the broker's log"
        ) from error
    finally:
        admin.close()


def _accepts(address: str, deadline: float) -> bool:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise BrokerError(
            f"{address!r} is no broker address; "
            "DRIFTLINE_BROKER__BOOTSTRAP is host:port[,host:port]"
        )
    left_s = max(RETRY_PAUSE_S, deadline - time.monotonic())
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=left_s).close()
    except (OSError, OverflowError):
        return False
    return True
