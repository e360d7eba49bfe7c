"""Metrics and health over HTTP: what a scraper and an orchestrator see."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from profiles.endpoint import Endpoint
from profiles.errors import SettingsError
from profiles.metrics import WorkerMetrics
from profiles.settings.access import HttpSettings, SecuritySettings

pytestmark = pytest.mark.unit


class Health:
    """What the probes say; None is well."""

    ready: str | None = None
    live: str | None = None


@pytest.fixture(scope="module")
def health() -> Health:
    return Health()


@pytest.fixture(scope="module")
def endpoint(health: Health) -> Iterator[Endpoint]:
    metrics = WorkerMetrics(CollectorRegistry())
    metrics.swaps.inc(3)
    served = Endpoint(
        HttpSettings(),
        SecuritySettings(http_requests_per_s=0),
        metrics.registry,
        lambda: health.ready,
        lambda: health.live,
    )
    yield served
    served.close()


def get(endpoint: Endpoint, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}{path}", timeout=10) as got:
            return got.status, got.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_are_served_in_prometheus_form(endpoint: Endpoint) -> None:
    status, text = get(endpoint, "/metrics")
    assert status == 200
    assert "driftline_swaps_total 3.0" in text


@pytest.mark.parametrize(("path", "probe"), [("/readyz", "ready"), ("/livez", "live")])
def test_a_probe_says_ok_or_503_and_why(
    endpoint: Endpoint, health: Health, path: str, probe: str
) -> None:
    assert get(endpoint, path) == (200, "ok\n")
    setattr(health, probe, "restoring partitions [2] …")
    try:
        assert get(endpoint, path) == (503, "restoring partitions [2] …\n")
    finally:
        setattr(health, probe, None)


@pytest.mark.parametrize("path", ["/", "/metrics/", "/profiles/ann", "/livez/../metrics"])
def test_everything_else_is_not_found(endpoint: Endpoint, path: str) -> None:
    status, text = get(endpoint, path)
    assert status == 404
    assert "/readyz" in text


def test_a_client_that_says_nothing_keeps_nobody_waiting(endpoint: Endpoint) -> None:
    with socket.create_connection(("127.0.0.1", endpoint.port)):
        assert get(endpoint, "/livez") == (200, "ok\n")


def test_a_port_that_is_taken_is_a_settings_error_with_a_remedy(endpoint: Endpoint) -> None:
    with pytest.raises(SettingsError, match=r"http\.port=\d+ cannot be opened.*or 0 for any"):
        Endpoint(
            HttpSettings(port=endpoint.port),
            SecuritySettings(),
            CollectorRegistry(),
            lambda: None,
            lambda: None,
        )
