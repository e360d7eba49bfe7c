"""The rules file, read again whenever it changes; of a bad version the last good one stays.

At the start a bad file ends the worker: nobody should find out later that no rule was in force.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from profiles.errors import SettingsError
from profiles.logs import get_logger
from profiles.metrics import WorkerMetrics
from profiles.rules import Rules, read_rules
from stream.event_path import EventPath
from stream.state_thread import StateThread

log = get_logger("stream.rules_feed")

LOOK_EVERY_S = 2.0


class RulesFeed:
    """Puts the rules of a file in force between two batches."""

    def __init__(
        self, file: Path, path: EventPath, state: StateThread, metrics: WorkerMetrics
    ) -> None:
        self._file, self._path, self._state, self._metrics = file, path, state, metrics
        self._text = self._read()
        self._path.rule(read_rules(self._text, file))

    async def run(self) -> None:
        """Look for another version for as long as the worker lives."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Take the file as it is now, if it has changed."""
        try:
            text = await asyncio.to_thread(self._read)
            if text == self._text:
                return
            self._text = text
            rules: Rules = read_rules(text, self._file)
        except SettingsError as error:
            self._metrics.rules_loads.labels("refused").inc()
            log.error("rules refused, the last good ones stay", error=str(error))
            return
        await self._state.run(self._path.rule, rules)
        self._metrics.rules_loads.labels("taken").inc()
        log.info("rules taken", file=str(self._file))

    def _read(self) -> str:
        try:
            return self._file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"rules file {str(self._file)!r} cannot be read: {error}; check serving.rules"
            ) from error
