"""The audit log: what was done stands there, and what was changed there shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from profiles.audit import FILE_NAME, AuditLog
from profiles.config import Settings
from profiles.errors import AuditError

pytestmark = pytest.mark.unit


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    made = AuditLog(tmp_path / "state" / FILE_NAME)
    for number in range(4):
        made.append("learner", "release serving", release=f"r{number}")
    return made


def test_acts_are_chained_from_the_first_line_on(log: AuditLog) -> None:
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert [line["details"]["release"] for line in lines] == ["r0", "r1", "r2", "r3"]
    assert len({line["before"] for line in lines}) == 4
    assert log.verify().lines == 4


def test_writers_that_share_a_file_keep_one_chain(log: AuditLog) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: AuditLog(log.path).append("worker", "erasure", n=n), range(50)))
    assert log.verify().lines == 54


def _change(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1].replace(b"r1", b"r9"), *lines[2:]]


def _remove(lines: list[bytes]) -> list[bytes]:
    return [*lines[:1], *lines[2:]]


def _swap(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[2], lines[1], lines[3]]


def _insert(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], lines[1], *lines[2:]]


def _cut_the_beginning(lines: list[bytes]) -> list[bytes]:
    return lines[1:]


@pytest.mark.parametrize("tamper", [_change, _remove, _swap, _insert, _cut_the_beginning])
def test_tampering_breaks_the_chain(
    log: AuditLog, tamper: Callable[[list[bytes]], list[bytes]]
) -> None:
    log.path.write_bytes(b"".join(tamper(log.path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(AuditError, match="does not continue"):
        log.verify()


def test_a_changed_last_line_and_a_cut_end_show_against_an_anchor(log: AuditLog) -> None:
    anchor = log.verify().anchor
    whole = log.path.read_bytes()
    log.path.write_bytes(whole.replace(b"r3", b"r9"))
    with pytest.raises(AuditError, match="not the one"):
        log.verify(anchor)
    log.path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(AuditError, match="cut off"):
        log.verify(anchor)
    log.path.write_bytes(whole)
    log.append("operator", "release rolled-back", release="r3")
    assert log.verify(anchor).lines == 5


def test_a_line_torn_by_a_kill_is_kept_and_vouched_for(log: AuditLog) -> None:
    log.path.write_bytes(log.path.read_bytes() + b'{"at":"2026-')
    log.append("learner", "release serving", release="r4")
    verdict = log.verify()
    assert (verdict.lines, verdict.torn) == (6, 1)
    log.path.write_bytes(log.path.read_bytes().replace(b'{"at":"2026-\n', b'{"at":"2027-\n'))
    with pytest.raises(AuditError, match="line 6"):
        log.verify()


def test_bad_anchors_and_files_are_named(log: AuditLog, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="LINES:SHA256"):
        log.verify("yesterday")
    with pytest.raises(AuditError, match="cannot be read"):
        AuditLog(tmp_path / "none").verify()


def test_a_log_that_cannot_be_written_stops_the_act(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"security\.audit_log"):
        AuditLog(tmp_path).append("learner", "release serving")  # a directory


def test_it_lies_beside_the_state_unless_told_otherwise(tmp_path: Path) -> None:
    assert AuditLog.of(Settings()).path == Path("data") / FILE_NAME
    settings = Settings(security={"audit_log": tmp_path / "a.jsonl"})
    assert AuditLog.of(settings).path == tmp_path / "a.jsonl"
