"""The console as a process: the HTTP API's application with further routes, and one more reader."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from profiles.config import Settings
from profiles.topics import Topics
from profiles.tracing import Traces, open_traces
from profiles.web_policy import WebPolicy
from stream.api.answers import answer_desk, taken_by
from stream.api.app import create_app
from stream.api.feed import Feed
from stream.api.guard import Policy
from stream.api.parts import Parts
from stream.api.read_model import ReadModel
from stream.api.serve import address, open_port, run_server
from stream.client import AsyncDriftline
from stream.console.acts import Acts, Desk
from stream.console.gauges import Gauges
from stream.console.insight import Insight
from stream.console.live import Live
from stream.console.routes import ConsoleParts, console_router
from stream.console.signs import Signs

if TYPE_CHECKING:
    from stream.chunks import Record  # which would import Faust


def run_console(settings: Settings, desk: Desk, told: Callable[[str], None] = print) -> None:
    """Run the console until SIGINT or SIGTERM.

    Raises: SettingsError, BrokerError, TopicError.
    """
    # Refused before anything is opened.
    asyncio.run(_run(settings, Policy.of(settings).web, desk, told))


async def _run(settings: Settings, web: WebPolicy, desk: Desk, told: Callable[[str], None]) -> None:
    with closing(open_traces(settings.observability, "driftline-console")) as traces:
        await _run_traced(settings, web, desk, told, traces)


async def _run_traced(
    settings: Settings, web: WebPolicy, desk: Desk, told: Callable[[str], None], traces: Traces
) -> None:
    model, topics = ReadModel(settings), Topics.under(settings.topics.prefix)
    answers = answer_desk(model)
    into_model = taken_by(model, answers, topics)
    signs = Signs(topics, model.opened_recommendation)
    live = Live(signs, lambda: model.releases().serving)
    insight = Insight(settings, model, desk.open)
    followed = {source.topic for source in model.sources}

    def take(topic: str, records: Sequence[Record]) -> None:
        if topic in followed:
            into_model(topic, records)
        signs.take(topic, records)
        insight.take(topic, records)

    def on_stop() -> None:
        live.end()
        signs.end()

    async with (
        AsyncDriftline(settings, answers=answers) as client,
        Feed.opened(settings.broker, (*model.sources, *signs.sources), take) as feed,
        Gauges.opened(settings) as gauges,
    ):
        router = console_router(
            ConsoleParts(settings, model, signs, live, insight, Acts.of(settings, desk))
        )
        app = create_app(
            Parts(settings, model, client, feed.why_not_ready, feed.why_not_live),
            router,
            traces=traces,
        )
        with open_port(settings.api) as listener:
            looking = asyncio.create_task(live.run(gauges))
            try:
                told(f"driftline's console is at {address(web, settings.api.host, listener)}/")
                await run_server(app, listener, web, on_stop)
            finally:
                looking.cancel()
                with suppress(asyncio.CancelledError):
                    await looking
