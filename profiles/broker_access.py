"""Who we are to Kafka: TLS and SASL, as the keyword arguments that aiokafka and kafka-python share.

One block of settings (`broker.*`) serves every client: workers, learner, command line.  The
broker's certificate is checked against `broker.ca_file`, or the system's authorities, and its name.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from profiles.errors import SettingsError
from profiles.settings.kafka import BrokerSettings


# Any: the two clients' own argument types, which neither declares.
def security_options(broker: BrokerSettings) -> dict[str, Any]:
    """Arguments of a client of either library; empty where Kafka asks for nothing.

    Raises: SettingsError naming the file that cannot be used.

    >>> security_options(BrokerSettings())
    {}
    >>> sasl = BrokerSettings(security="SASL_PLAINTEXT", username="w", password="x")
    >>> options = security_options(sasl)
    >>> options["sasl_mechanism"], options["sasl_plain_username"]
    ('SCRAM-SHA-512', 'w')
    """
    if broker.security == "PLAINTEXT":
        return {}
    options: dict[str, Any] = {"security_protocol": broker.security}
    if broker.security.endswith("SSL"):
        options["ssl_context"] = tls_context(broker)
    if broker.security.startswith("SASL"):
        assert broker.password is not None, "settings with SASL and no password are refused"
        options |= {
            "sasl_mechanism": broker.sasl_mechanism,
            "sasl_plain_username": broker.username,
            "sasl_plain_password": broker.password.get_secret_value(),
        }
    return options


def tls_context(broker: BrokerSettings) -> ssl.SSLContext:
    """What to trust, and our own certificate if there is one.  Raises: SettingsError."""
    named = broker.ca_file
    try:
        context = ssl.create_default_context(cafile=_text(broker.ca_file))
        context.check_hostname = broker.check_hostname
        if broker.cert_file is not None:
            named = broker.cert_file
            password = broker.key_password
            context.load_cert_chain(
                broker.cert_file,
                broker.key_file,
                # Never None: OpenSSL would ask for it on the terminal.
                password.get_secret_value() if password is not None else "",
            )
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(
            f"{named} cannot be used to reach Kafka ({error}); check broker.ca_file, "
            "broker.cert_file, broker.key_file and broker.key_password"
        ) from error
    return context


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
