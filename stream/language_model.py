"""The language model beside the stream: one child process that encodes texts.

A worker needs the model rarely (an item newer than the release, a declared interest, the proof
of a new release), and importing torch alone would hold the interpreter for seconds.  So it lives
in a child of its own with low priority; the event loop awaits its answers, and the event path
never shares an interpreter lock with it.  The base is loaded once and adapters are put on it
(`stream.adapter_shelf`), two at most: the serving release's and the one being verified.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Protocol

import numpy as np

from profiles.config import Settings
from profiles.encoder import PROBE_TEXTS
from profiles.errors import ModelError
from profiles.layers import Floats
from profiles.settings.learning import ModelSettings
from stream.adapter_shelf import AdapterShelf

KEPT_ADAPTERS = 2
START_METHOD = "spawn"
"""A forked child would inherit the locks of the worker's other threads, whoever held them."""

_shelf = AdapterShelf(most=KEPT_ADAPTERS)  # of the child process alone


def _begin() -> None:
    """Before anything else in the child: no import that nothing here uses.

    transformers imports scikit-learn where it finds it, which costs 3.5 of 11 seconds; a None in
    `sys.modules` is Python's own way to say that a module is not there.
    """
    sys.modules["sklearn"] = None  # type: ignore[assignment]
    # A killed worker says no goodbye, and this process holds both ends of its own queue.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


def _warm_up(settings: ModelSettings) -> None:
    """Import what the first encoding needs, while the worker is still joining its group.

    Raises: ModelError when the base model cannot be loaded: better said now than at a swap.
    """
    import peft  # noqa: F401
    import torch

    base = _shelf.check(settings)
    torch.set_num_threads(1)
    # torch takes four times as long over its first texts: not over those of a swap's proof.
    base.exact(PROBE_TEXTS)
    # Only now: until a release is proved, the whole worker waits for this process.
    os.nice(5)


def _encode(settings: ModelSettings, adapter: str, texts: list[str], exact: bool) -> Floats:
    read = _shelf.read if exact else _shelf.encode
    return read(settings, Path(adapter), texts)


class LanguageModel(Protocol):
    """What reads texts for a process: `ChildModel`, or `shared_encoder.client.SharedModel`."""

    async def checked(self) -> None: ...
    async def encode(self, adapter: Path, texts: list[str], *, exact: bool = False) -> Floats: ...
    def close(self) -> None: ...


def open_language_model(settings: Settings) -> LanguageModel:
    """The one that the settings ask for; the caller closes it."""
    if settings.serving.encoder_socket is None:
        return ChildModel(settings.model)
    from stream.shared_encoder.client import SharedModel

    return SharedModel(settings.serving.encoder_socket)


class ChildModel:
    """Encodes texts in the child process.  `close` ends it."""

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        self._pool = self._new_pool()
        self._warm = self._pool.submit(_warm_up, settings)

    async def checked(self) -> None:
        """Return once the base model is known to load.  Raises: ModelError."""
        try:
            await asyncio.wrap_future(self._warm)
        except BrokenProcessPool as error:
            raise ModelError(
                "the language model's process died while it was loading; is there enough memory?"
            ) from error

    async def encode(self, adapter: Path, texts: list[str], *, exact: bool = False) -> Floats:
        """Vectors of texts under one adapter.

        `exact`: in float32, for the proof that this process reads as the trainer did.
        Shapes: -> (len(texts), T), float32, unit length.
        Raises: ModelError; a child that died is replaced once before that.
        """
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        for attempt in (1, 2):
            pool = self._pool
            try:
                return await asyncio.get_running_loop().run_in_executor(
                    pool, _encode, self._settings, str(adapter), texts, exact
                )
            except BrokenProcessPool as error:
                if attempt == 2:
                    raise ModelError(
                        "the language model's process died twice while encoding "
                        f"{len(texts)} texts; is there enough memory?"
                    ) from error
                if self._pool is pool:  # another call may have replaced it already
                    self._pool = self._new_pool()
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End the child; what it was doing is dropped."""
        for process in list((self._pool._processes or {}).values()):
            process.terminate()
        # Waiting lets the pool's own thread see the death and give its semaphores back.
        self._pool.shutdown(wait=True, cancel_futures=True)

    @staticmethod
    def _new_pool() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            max_workers=1,
            mp_context=multiprocessing.get_context(START_METHOD),
            initializer=_begin,
        )
