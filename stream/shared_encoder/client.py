"""A worker's side of `driftline encoder`: asks by number, answers in any order.

An encoder that is restarted is waited for, and what had been asked is asked again: reading texts
changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from pathlib import Path

import numpy as np

from profiles.errors import ModelError
from profiles.layers import Floats
from profiles.logs import get_logger
from stream.shared_encoder.wire import ANSWERS, Answer, Ask, framed, read_frame

log = get_logger("stream.encoder_client")

PATIENCE_S = 60.0
"""How long an encoder may be away: it loads its base anew after a restart."""
RETRY_S = 0.25


class SharedModel:
    """Stands where `stream.language_model.ChildModel` does."""

    def __init__(self, path: Path, patience_s: float = PATIENCE_S) -> None:
        self._path, self._patience_s = path, patience_s
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._connecting = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None

    async def checked(self) -> None:
        """Return once the encoder answers, which it does with its base loaded.

        Raises: ModelError.
        """
        await self._ask("", [])

    async def encode(self, adapter: Path, texts: list[str], *, exact: bool = False) -> Floats:
        """As `ChildModel.encode`; always exact.  Raises: ModelError."""
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        answer = await self._ask(_named(adapter), texts)
        return answer.to_array()

    def close(self) -> None:
        """Hang up."""
        if self._reading is not None:
            with contextlib.suppress(RuntimeError):  # its loop may have ended before
                self._reading.cancel()
        if self._writer is not None:
            with contextlib.suppress(RuntimeError):
                self._writer.close()

    async def _ask(self, adapter: str, texts: list[str]) -> Answer:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience_s
        while True:
            number = next(self._numbers)
            self._waiting[number] = loop.create_future()
            try:
                writer = await self._connected()
                writer.write(framed(Ask(number, adapter, texts)))
                await writer.drain()
                return await self._waiting[number]
            except OSError as error:
                if loop.time() > deadline:
                    raise ModelError(
                        f"the encoder at {str(self._path)!r} cannot be reached: {error}; is "
                        "`driftline encoder` running, with this domain?"
                    ) from error
                await asyncio.sleep(RETRY_S)
            finally:
                self._waiting.pop(number, None)

    async def _connected(self) -> asyncio.StreamWriter:
        async with self._connecting:
            if self._writer is None:
                stream, self._writer = await asyncio.open_unix_connection(str(self._path))
                self._reading = asyncio.create_task(self._listen(stream))
            return self._writer

    async def _listen(self, stream: asyncio.StreamReader) -> None:
        """Hand out answers until the encoder goes; then whoever waits asks again."""
        while (payload := await read_frame(stream)) is not None:
            answer = ANSWERS.decode(payload)
            waiting = self._waiting.get(answer.number)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)
        if self._writer is not None:
            self._writer.close()
        self._writer = None
        log.warning("the encoder went away", socket=str(self._path))
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ConnectionResetError("the encoder went away"))


def _named(adapter: Path) -> str:
    """As the encoder, which has another working directory, finds it."""
    return os.path.abspath(adapter)
