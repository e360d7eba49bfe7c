"""The process `driftline encoder`: its parts, and how they start and end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from profiles.config import Settings
from profiles.endpoint import Endpoint
from profiles.errors import SettingsError
from profiles.logs import get_logger
from profiles.metrics import EncoderMetrics
from stream.shared_encoder.server import EncoderServer, Tenant

log = get_logger("stream.encoder")


def run_encoder(domains: Sequence[tuple[str, Settings]], budget: int) -> None:
    """Serve until SIGINT or SIGTERM; the first domain's settings say where metrics are.

    Raises: DriftlineError for what an operator can right.
    """
    tenants = [Tenant.of(name, settings) for name, settings in domains]
    check_apart(tenants)
    asyncio.run(_run(tenants, domains[0][1], budget))


def check_apart(tenants: Sequence[Tenant]) -> None:
    """Raises: SettingsError where two domains share a socket, or one could name the other's
    adapters."""
    for one, other in itertools.combinations(tenants, 2):
        names = f"domains {one.name!r} and {other.name!r}"
        if one.socket.absolute() == other.socket.absolute():
            raise SettingsError(
                f"{names} have one socket, {str(one.socket)!r}: who asks there could be either; "
                "give each a serving.encoder_socket of its own"
            )
        for mine, theirs in itertools.product(one.roots, other.roots):
            if mine.is_relative_to(theirs) or theirs.is_relative_to(mine):
                raise SettingsError(
                    f"{names} keep state or releases in {str(mine)!r} and {str(theirs)!r}: one "
                    "could read with the other's; give each a store.directory and a "
                    "store.releases of its own"
                )


async def _run(tenants: list[Tenant], settings: Settings, budget: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    registry = CollectorRegistry()
    metrics = EncoderMetrics(registry)
    server = EncoderServer(tenants, budget, metrics)
    serving = asyncio.create_task(server.run())
    endpoint = Endpoint(
        settings.http,
        settings.security,
        registry,
        lambda: None if server.is_ready else "the base model is loading",
        lambda: None,
    )
    log.info("encoder starting", http=endpoint.port, domains=[tenant.name for tenant in tenants])
    with contextlib.closing(endpoint):
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        log.info("encoder stopping")
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
