"""Who may ask driftline's HTTP servers: one policy for the metrics, the API and the console.

On loopback this machine's users; beyond it whoever has the token (`security.api_token`) or a
certificate that `security.http_client_ca` has signed (mutual TLS), or the process does not start.
The same few lines make the TLS context, the rate limit and the headers of all three, so that none
of them is the weak one.

What surprised us: a page of any web site can ask 127.0.0.1 under a name of its own (DNS
rebinding), so without token and certificate the Host header must name loopback.
"""

from __future__ import annotations

import hmac
import ipaddress
import ssl
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from profiles.errors import SettingsError
from profiles.rate_limit import RateLimit
from profiles.settings.access import SecuritySettings

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")

Refusal = Literal["rate", "foreign-host", "no-token"]


@dataclass(frozen=True, slots=True)
class WebPolicy:
    """`token`: what protected routes want, None for none; `tls`: how the server proves itself,
    None for plain HTTP; `wants_certificate`: no client without one gets past the handshake."""

    token: str | None
    tls: ssl.SSLContext | None
    wants_certificate: bool
    limit: RateLimit

    @classmethod
    def of(cls, security: SecuritySettings, host: str, setting: str) -> WebPolicy:
        """The policy of a server that listens on `host`, which the setting of that name gave.

        Raises: SettingsError when others could reach it and need neither token nor certificate,
        or when a certificate or key cannot be used.
        """
        wants_certificate = security.http_client_ca is not None
        if security.api_token is None and not wants_certificate and not is_loopback(host):
            raise SettingsError(
                f"{setting} is {host!r}, which other machines can reach, and anybody there could "
                "ask: set DRIFTLINE_SECURITY__API_TOKEN to a secret of at least 16 characters "
                "(`openssl rand -hex 24` makes one), or want certificates of clients "
                "(security.http_cert, security.http_key and security.http_client_ca), or keep "
                f"{setting} at 127.0.0.1"
            )
        token = None if security.api_token is None else security.api_token.get_secret_value()
        return cls(
            token,
            _context(security),
            wants_certificate,
            RateLimit(security.http_requests_per_s, security.http_burst),
        )

    @property
    def scheme(self) -> str:
        """Of the server's URLs."""
        return "http" if self.tls is None else "https"

    def refuses_host(self, host: str) -> bool:
        """Whether a Host header names another machine although only this one may ask."""
        is_open = self.token is None and not self.wants_certificate
        return is_open and name_of(host) not in LOOPBACK_NAMES

    def admits(self, authorization: str) -> bool:
        """Whether an Authorization header carries the token, if there is one."""
        if self.token is None:
            return True
        kind, _, given = authorization.partition(" ")
        same = hmac.compare_digest(given.strip().encode(), self.token.encode())
        return kind.lower() == "bearer" and same


def is_loopback(host: str) -> bool:
    """Whether a host name or address is of this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def name_of(host: str) -> str:
    """The name in a Host header, without port and brackets.

    >>> name_of("[::1]:8080"), name_of("localhost:80"), name_of("127.0.0.1")
    ('::1', 'localhost', '127.0.0.1')
    """
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _context(security: SecuritySettings) -> ssl.SSLContext | None:
    """TLS 1.2 or newer.  Raises: SettingsError."""
    if security.http_cert is None:
        return None
    password = security.http_key_password
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(
            security.http_cert,
            security.http_key,
            # Never None: OpenSSL would ask for it at the terminal.
            "" if password is None else password.get_secret_value(),
        )
        if security.http_client_ca is not None:
            context.load_verify_locations(security.http_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise SettingsError(
            f"the HTTP servers cannot use security.http_cert={str(security.http_cert)!r} with its "
            f"key and security.http_client_ca: {error}; give readable PEM files that belong "
            "together"
        ) from error
    return context
