"""The replay buffer encrypted: it works as the plain one does, and holds no event in the clear."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from learner.checkpoint import Checkpoint, Position, load_checkpoint, save_checkpoint
from learner.records import Row
from learner.replay import ReplayBuffer
from learner.reservoir import USER
from learner.sealed_disk import LearnerKeys
from profiles.errors import SealError
from profiles.key_file import VersionedKeys
from profiles.sealing import MasterKeys

pytestmark = pytest.mark.unit

SERVICE = MasterKeys(VersionedKeys({1: bytes(range(32))}))
MARK = 0x6472696674706C75
"""An item's key that is looked for in the files."""


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[LearnerKeys]:
    opened = LearnerKeys(tmp_path / "keys", SERVICE)
    yield opened
    opened.close()


def open_buffer(directory: Path, keys: LearnerKeys | None) -> ReplayBuffer:
    return ReplayBuffer(
        directory, buffer_bytes=60_000, sequence_length=8, seed=0, actions=["like"], keys=keys
    )


def fill(buffer: ReplayBuffer, users: int = 30, each: int = 20) -> None:
    """Rounds of events; enough that histories are evicted and reservoirs replace."""
    draws = random.Random(0)
    number = 0
    for period in range(1, 4):
        rows = []
        for _ in range(users * each):
            user = draws.randrange(1, users + 1)
            rows.append(Row(0, number, user, MARK, 0, 1.0, 1e9 + number, number + 1))
            number += 1
        buffer.ingest("events", rows, {0: number})
        buffer.finish_round(buffer.next_order, (rows[-50].ts, 0), period)


def contents(buffer: ReplayBuffer) -> list[tuple[int, list[int]]]:
    """Everything that can be drawn, as numbers."""
    rng = np.random.default_rng(0)
    found = [*buffer.fresh(), *buffer.replay(10_000, rng), *buffer.context(range(1, 31))]
    exams = buffer.draw_exams(1000, rng)
    found += [segment for held in exams.values() for segment in held]
    return [(segment.user, segment.orders.tolist()) for segment in found]


def bytes_below(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


def test_it_holds_what_a_plain_buffer_holds_and_none_of_it_in_the_clear(
    tmp_path: Path, keys: LearnerKeys
) -> None:
    plain, sealed = open_buffer(tmp_path / "plain", None), open_buffer(tmp_path / "b", keys)
    for buffer in (plain, sealed):
        fill(buffer)
    expected = contents(plain)
    assert contents(sealed) == expected
    sealed.close()
    again = open_buffer(tmp_path / "b", keys)
    assert contents(again) == expected
    for buffer in (plain, again):
        buffer.close()
    needle = MARK.to_bytes(8, "little")
    assert needle in bytes_below(tmp_path / "plain")
    assert needle not in bytes_below(tmp_path / "b")


def test_an_erasure_reports_as_a_plain_buffer_does_and_destroys_the_key(
    tmp_path: Path, keys: LearnerKeys
) -> None:
    plain, sealed = open_buffer(tmp_path / "plain", None), open_buffer(tmp_path / "b", keys)
    for buffer in (plain, sealed):
        fill(buffer)
        buffer.note_release("r1", buffer.next_order)
    backup = keys.seal(USER.pack(7), b"an old copy")
    assert sealed.erase([7, 8]) == plain.erase([7, 8])
    assert contents(sealed) == contents(plain)
    with pytest.raises(SealError, match="do not open"):
        keys.open_many([USER.pack(7)], [backup])
    for buffer in (plain, sealed):
        buffer.close()


def test_a_rounds_files_do_not_open_once_it_is_over(tmp_path: Path, keys: LearnerKeys) -> None:
    vault = keys.round_vault()
    saved = Checkpoint("round-1", Position(step=3), {"model/w": torch.ones(4)})
    path = tmp_path / "checkpoint"
    save_checkpoint(path, saved, vault.seal)
    assert b"__metadata__" not in path.read_bytes()
    again = load_checkpoint(path, "round-1", keys.round_vault().open)
    assert again is not None
    assert again.position == saved.position
    assert again.tensors["model/w"].tolist() == [1.0] * 4
    assert load_checkpoint(path, "round-2", vault.open) is None
    keys.forget_round()
    assert load_checkpoint(path, "round-1", keys.round_vault().open) is None


def test_a_wrong_master_key_is_told_at_the_start(tmp_path: Path, keys: LearnerKeys) -> None:
    keys.seal(USER.pack(1), b"x")
    keys.close()
    wrong = MasterKeys(VersionedKeys({1: bytes(32)}))
    with pytest.raises(SealError, match="does not open"):
        LearnerKeys(tmp_path / "keys", wrong)
    rotated = MasterKeys(VersionedKeys({1: bytes(range(32)), 2: bytes(32)}))
    LearnerKeys(tmp_path / "keys", rotated).close()
    # Everything was wrapped anew: the old version is not needed any more.
    LearnerKeys(tmp_path / "keys", MasterKeys(VersionedKeys({2: bytes(32)}))).close()
