"""Who may ask the HTTP servers: metrics and API over real sockets, with TLS where it matters."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from pydantic import SecretStr, ValidationError

from profiles.config import Settings
from profiles.endpoint import CONNECTIONS, Endpoint
from profiles.errors import SettingsError
from profiles.rate_limit import MAX_CLIENTS, RateLimit
from profiles.settings.access import HttpSettings, SecuritySettings
from profiles.web_policy import SECURITY_HEADERS, WebPolicy
from stream.api.app import create_app
from stream.api.guard import Policy
from stream.api.parts import Parts
from stream.api.read_model import ReadModel
from stream.api.serve import open_port, run_server
from tests.certificates import Authority
from tests.unit.test_api import TOKEN, FakeClient

pytestmark = pytest.mark.unit

ANYWHERE = HttpSettings(host="0.0.0.0")  # noqa: S104  # what must be refused, or want a token
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@dataclass(frozen=True, slots=True)
class Keys:
    """Files of the server's side and the client's, and a client of another authority."""

    security: SecuritySettings
    authority: Path
    client: Path
    stranger: Path

    def trusting(self, certificate: Path | None = None) -> ssl.SSLContext:
        """A client's view: it trusts the server's authority and shows a certificate, or none."""
        context = ssl.create_default_context(cafile=str(self.authority))
        if certificate is not None:
            context.load_cert_chain(certificate)
        return context


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    directory = tmp_path_factory.mktemp("keys")
    ours, theirs = Authority(directory), Authority(directory, "another authority")
    security = SecuritySettings(http_cert=ours.chain("server"), http_client_ca=ours.file)
    return Keys(security, ours.file, ours.chain("client"), theirs.chain("stranger"))


@contextmanager
def endpoint(
    security: SecuritySettings, http: HttpSettings | None = None, ready: str | None = None
) -> Iterator[Endpoint]:
    served = Endpoint(
        http or HttpSettings(), security, CollectorRegistry(), lambda: ready, lambda: None
    )
    try:
        yield served
    finally:
        served.close()


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: str


def ask(
    port: int, path: str, headers: dict[str, str] | None = None, tls: ssl.SSLContext | None = None
) -> Answer:
    connection = (
        http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        if tls is None
        else http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=tls)
    )
    with closing(connection):
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read().decode())


def say(port: int, words: bytes) -> bytes:
    """What comes back for bytes that are no proper request."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(words)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "metrics.example"])  # noqa: S104
def test_no_server_listens_beyond_loopback_without_token_or_client_certificates(
    host: str, keys: Keys
) -> None:
    only_tls = keys.security.model_copy(update={"http_client_ca": None})
    for security in (SecuritySettings(), only_tls):
        with pytest.raises(SettingsError, match=r"http\.host is .*API_TOKEN .*http_client_ca"):
            Endpoint(
                HttpSettings(host=host), security, CollectorRegistry(), lambda: None, lambda: None
            )
        settings = Settings().model_copy(update={"security": security})
        api = settings.api.model_copy(update={"host": host})
        with pytest.raises(SettingsError, match=r"api\.host is"):
            Policy.of(settings.model_copy(update={"api": api}))
    with_token = SecuritySettings(api_token=SecretStr(TOKEN))
    assert WebPolicy.of(with_token, host, "http.host").token == TOKEN
    assert WebPolicy.of(keys.security, host, "http.host").wants_certificate


def test_a_token_guards_the_metrics_and_hides_reasons_but_not_the_probes() -> None:
    with endpoint(SecuritySettings(api_token=SecretStr(TOKEN)), ANYWHERE, "restoring") as served:
        assert ask(served.port, "/metrics").status == 401
        assert ask(served.port, "/metrics", {"Authorization": "Bearer wrong"}).status == 401
        metrics = ask(served.port, "/metrics", BEARER)
        assert 'driftline_http_refused_total{reason="no-token"} 2.0' in metrics.body
        probe = ask(served.port, "/readyz")
        assert (probe.status, probe.body) == (503, "not well\n")
        assert ask(served.port, "/readyz", BEARER).body == "restoring\n"


def test_a_page_of_another_site_cannot_read_the_metrics_through_a_visitors_browser() -> None:
    with endpoint(SecuritySettings()) as served:
        assert ask(served.port, "/metrics", {"Host": "evil.example"}).status == 403
        assert ask(served.port, "/metrics", {"Host": f"localhost:{served.port}"}).status == 200


def test_only_a_certificate_of_the_right_authority_gets_to_the_metrics(keys: Keys) -> None:
    with endpoint(keys.security, ANYWHERE) as served:
        answer = ask(served.port, "/metrics", tls=keys.trusting(keys.client))
        assert answer.status == 200
        for refused in (None, keys.stranger):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                ask(served.port, "/metrics", tls=keys.trusting(refused))
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            ask(served.port, "/metrics")  # plain HTTP
        told = ask(served.port, "/metrics", tls=keys.trusting(keys.client)).body
        assert 'driftline_http_refused_total{reason="handshake"} 3.0' in told


def test_neither_a_silent_client_nor_many_of_them_stop_the_metrics(keys: Keys) -> None:
    with endpoint(keys.security) as served:
        silent = [
            socket.create_connection(("127.0.0.1", served.port)) for _ in range(CONNECTIONS // 8)
        ]
        assert ask(served.port, "/livez", tls=keys.trusting(keys.client)).status == 200
        for connection in silent:
            connection.close()


def test_a_client_that_asks_too_often_is_told_when_to_come_back_and_is_counted() -> None:
    slow = SecuritySettings(http_requests_per_s=0.001, http_burst=3)
    with endpoint(slow) as served:
        answers = [ask(served.port, "/livez") for _ in range(5)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 1000
    settings = Settings().model_copy(update={"security": slow})
    http = TestClient(
        create_app(Parts(settings, ReadModel(settings), FakeClient(), lambda: None)),
        base_url="http://127.0.0.1",
    )
    statuses = [http.get("/v1/releases").status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    assert http.get("/metrics").headers["retry-after"]


def test_a_bucket_fills_again_and_no_number_of_clients_fills_the_memory() -> None:
    now_s = 0.0
    limit = RateLimit(per_s=2.0, burst=2, clock_s=lambda: now_s)
    assert [limit.wait_s("192.0.2.1") for _ in range(3)] == [0.0, 0.0, 0.5]
    # Whoever has one address of a /64 has all of them.
    assert [limit.wait_s(f"2001:db8::{n}") for n in range(3)] == [0.0, 0.0, 0.5]
    now_s = 0.5
    assert [limit.wait_s("192.0.2.1") for _ in range(2)] == [0.0, 0.5]
    for number in range(MAX_CLIENTS + 100):
        limit.wait_s(f"client-{number}")
    assert len(limit._buckets) == MAX_CLIENTS
    assert RateLimit(per_s=0.0, burst=1).wait_s("192.0.2.1") == 0.0


@pytest.mark.parametrize("words", [b"\x00\x01", b"GET / HTTP/9.9", b"G E T /"])
def test_what_is_no_request_at_all_is_answered_with_the_headers_as_well(words: bytes) -> None:
    with endpoint(SecuritySettings()) as served:
        answer = say(served.port, words + b"\r\n\r\n").lower()
    assert b"python" not in answer
    for name in SECURITY_HEADERS:
        assert f"\r\n{name}: ".encode() in answer


def test_every_answer_of_the_metrics_server_carries_the_security_headers() -> None:
    def broken() -> str | None:
        raise RuntimeError("a defect")

    served = Endpoint(
        HttpSettings(), SecuritySettings(), CollectorRegistry(), broken, lambda: "stuck"
    )
    with closing(served):
        answers = {path: ask(served.port, path) for path in ("/metrics", "/livez", "/", "/readyz")}
        refused = ask(served.port, "/metrics", {"Host": "evil.example"})
    statuses = [answer.status for answer in (*answers.values(), refused)]
    assert statuses == [200, 503, 404, 500, 403]
    assert "defect" not in answers["/readyz"].body
    for answer in (*answers.values(), refused):
        assert {name: answer.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
        assert "Python" not in str(answer.headers)


@asynccontextmanager
async def api(settings: Settings) -> AsyncIterator[int]:
    """The API as it is really served, with a route that fails."""
    policy = Policy.of(settings)
    app = create_app(Parts(settings, ReadModel(settings), FakeClient(), lambda: None))

    @app.get("/v1/defect/{user_id}")
    async def defect(user_id: str) -> None:
        raise RuntimeError("a defect")

    with open_port(settings.api) as listener:
        serving = asyncio.create_task(run_server(app, listener, policy.web))
        try:
            yield listener.getsockname()[1]
        finally:
            signal.raise_signal(signal.SIGTERM)  # what ends it in life
            await serving


def api_settings(security: SecuritySettings) -> Settings:
    settings = Settings()
    at = settings.api.model_copy(update={"port": 0})
    return settings.model_copy(update={"security": security, "api": at})


async def test_only_a_certificate_of_the_right_authority_gets_to_the_api(keys: Keys) -> None:
    async with api(api_settings(keys.security)) as port:
        good = await asyncio.to_thread(ask, port, "/v1/releases", tls=keys.trusting(keys.client))
        assert (good.status, json.loads(good.body)["releases"]) == (200, [])
        for refused in (None, keys.stranger):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.to_thread(ask, port, "/v1/releases", tls=keys.trusting(refused))


async def test_every_answer_of_the_api_carries_the_headers_and_no_log_line_names_a_user(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = api_settings(SecuritySettings())
    pages = {
        "/v1/profiles/a-secret-user": 404,
        "/v1/recommendations/a-secret-user?exclude=a-secret-user": 200,
        "/v1/defect/a-secret-user": 500,
        "/nowhere/a-secret-user": 404,
        "/metrics": 200,
    }
    async with api(settings) as port:
        for page, status in pages.items():
            answer = await asyncio.to_thread(ask, port, page)
            assert answer.status == status
            assert {name: answer.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
        assert "a defect" not in answer.body
        malformed = await asyncio.to_thread(say, port, b"\x00 /a-secret-user\r\n\r\n")
        for name in SECURITY_HEADERS:
            assert f"\r\n{name}: ".encode() in malformed.lower()
    assert not [line for line in caplog.messages if "secret" in line]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"http_client_ca": "ca.pem"}, "need http_cert"),
        ({"http_key": "key.pem"}, "need http_cert"),
        ({"http_burst": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_would_guard_nothing_are_refused(given: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        SecuritySettings.model_validate(given)


def test_a_certificate_that_cannot_be_used_is_named(keys: Keys, tmp_path: Path) -> None:
    for cert in (tmp_path / "missing.pem", keys.authority):  # the authority's lacks its key
        with pytest.raises(SettingsError, match=r"security\.http_cert='.*belong together"):
            WebPolicy.of(SecuritySettings(http_cert=cert), "127.0.0.1", "http.host")
