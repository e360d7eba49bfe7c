"""Logs: an event, then its facts, from our own loggers and from the standard library's."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from kafka.errors import Cancelled, KafkaTimeoutError

from profiles.logs import configure_logs, get_logger

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def usual_logging() -> Iterator[None]:
    """Puts back what a test configures: logging is global."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in ("faust", "kafka", "stream.chunks")}
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def test_a_line_of_json_holds_the_event_its_facts_and_where_it_came_from(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs("info", as_json=True)
    get_logger("stream.test").info("partition open", partition=3)
    logging.getLogger("elsewhere").warning("old %s", "style")
    ours, theirs = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (ours["event"], ours["partition"]) == ("partition open", 3)
    assert (ours["level"], ours["logger"]) == ("info", "stream.test")
    assert (theirs["event"], theirs["level"]) == ("old style", "warning")


def test_below_the_level_and_from_talkative_libraries_nothing_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs("info")
    get_logger("stream.test").debug("an event", user="ann")
    for talkative in ("faust", "kafka", "stream.chunks"):
        logging.getLogger(talkative).info("the story of my life")
    assert capsys.readouterr().err == ""


def test_a_client_that_is_closed_is_no_error_and_one_that_fails_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs("info", as_json=True)
    kafka = logging.getLogger("kafka.cluster")
    kafka.error("Metadata refresh: failed %s", Cancelled())  # as kafka-python 3.0 says it
    kafka.error("Metadata refresh: failed %s", KafkaTimeoutError("no answer"))
    (line,) = capsys.readouterr().err.splitlines()
    assert "no answer" in line


def test_a_trace_shows_no_variables(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info")

    def fail(user: str) -> None:
        raise RuntimeError("out of luck")

    try:
        fail("nobody's business")
    except RuntimeError:
        get_logger("stream.test").exception("failed")
    told = capsys.readouterr().err
    assert "out of luck" in told
    assert "business" not in told.replace('fail("nobody\'s business")', "")
