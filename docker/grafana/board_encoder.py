"""One language model for several domains: texts read, adapters held.  For `driftline encoder`."""

from __future__ import annotations

from docker.grafana.panels import BYTES, COUNT, PER_SECOND, Row, graph, number, rate, total

ROWS = (
    Row(
        "Now",
        [
            number(
                "Ready",
                "Encoders with their base models loaded.",
                COUNT,
                total("driftline_encoder_ready"),
                alert="DriftlineEncoderNotReady",
            ),
            number(
                "Adapters", "In memory, side by side.", COUNT, total("driftline_encoder_adapters")
            ),
            number(
                "Refused",
                "Asks for another domain's adapter, for one that does not load, or no asks at all.",
                COUNT,
                f"{total('driftline_encoder_refused_total')} or vector(0)",
                bad_from=1,
            ),
        ],
    ),
    Row(
        "Reading",
        [
            graph(
                "Texts read",
                "By domain; a worker's first release reads most.",
                PER_SECOND,
                {"{{domain}}": rate("driftline_encoder_texts_total", by="domain")},
            ),
            graph(
                "Memory of adapters",
                "What --adapter-mib bounds.",
                BYTES,
                {"bytes": total("driftline_encoder_adapter_bytes")},
            ),
            graph(
                "Adapters that made room",
                "Many a minute: the budget is too small, and each is loaded again.",
                PER_SECOND,
                {"evicted": rate("driftline_encoder_evicted_total")},
            ),
        ],
    ),
)
