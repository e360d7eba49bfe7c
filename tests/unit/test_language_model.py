"""The language model's process from the outside: a child that dies is an error with a remedy."""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from profiles.errors import ModelError
from profiles.layers import Floats
from profiles.settings.learning import ModelSettings
from stream.language_model import ChildModel

pytestmark = pytest.mark.unit

OUT_OF_MEMORY = BrokenProcessPool("a process was terminated abruptly")


class DyingPool:
    """A pool whose child dies at every task."""

    def __init__(self) -> None:
        self.asked = 0

    def submit(self, *_: object) -> Future[Floats]:
        self.asked += 1
        failed: Future[Floats] = Future()
        failed.set_exception(OUT_OF_MEMORY)
        return failed

    def shutdown(self, **_: object) -> None:
        """Nothing to end."""


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[DyingPool]:
    """Every pool that is made."""
    made: list[DyingPool] = []

    def new_pool() -> DyingPool:
        made.append(DyingPool())
        return made[-1]

    monkeypatch.setattr(ChildModel, "_new_pool", staticmethod(new_pool))
    return made


async def test_a_child_that_dies_while_loading_is_a_model_error(pools: list[DyingPool]) -> None:
    with pytest.raises(ModelError, match="enough memory"):
        await ChildModel(ModelSettings()).checked()
    assert len(pools) == 1


async def test_a_child_that_dies_is_replaced_once(pools: list[DyingPool]) -> None:
    model = ChildModel(ModelSettings())
    with pytest.raises(ModelError, match=r"died twice .* 3 texts"):
        await model.encode(Path("adapter"), ["a", "b", "c"])
    assert [pool.asked for pool in pools] == [2, 1]  # the first one was warmed up, too


async def test_no_texts_need_no_model(pools: list[DyingPool]) -> None:
    assert len(await ChildModel(ModelSettings()).encode(Path("adapter"), [])) == 0
    assert pools[0].asked == 1
