"""Logging, configured in this one place: an event, then its facts.

No user id, raw or hashed, at INFO or above; nothing per event above DEBUG.
"""

from __future__ import annotations

import logging
import sys

import structlog


def configure_logs(level: str = "info", as_json: bool = False) -> None:
    """Send structlog and the standard library's records to stderr, human-readable or JSON."""
    shared: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # The default draws every frame with its variables: with a batch among them that
            # blocks an event loop for seconds, and it would show users.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_is_worth_saying)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # These tell their life story at INFO; ours is the one to read.  The last two are our own
    # subclasses of Faust's services, which log under the module that defines them.
    for noisy in (
        "kafka", "aiokafka", "faust", "mode", "asyncio", "transformers", "stream.chunks",
        "stream.broadcast",
    ):  # fmt: skip
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


def _is_worth_saying(record: logging.LogRecord) -> bool:
    """All but what kafka-python calls an error when a client is closed: that it no longer waits for
    the metadata it had just asked for."""
    return record.name != "kafka.cluster" or not record.getMessage().endswith("failed Cancelled")


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
