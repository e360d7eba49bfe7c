"""The audit log: what was done to releases and to users' data, in a file that shows tampering.

One JSON line per act.  Each line carries the SHA-256 of the line before it (`before`), so that a
line changed, removed or put in later breaks every link after it.  Lines cut off the end leave no
trace in the file itself: note `driftline audit verify`'s anchor elsewhere and give it back next
time.  No user id is ever written, only the id of the erasure: the log outlives who was erased.

Learner, workers and operators' commands of one machine share the file; a lock orders them.  A
process killed half way through leaves a torn line, which stays where it is and is chained as it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from profiles.config import Settings
from profiles.errors import AuditError

FILE_NAME = "audit.jsonl"
NOTHING_BEFORE = "0" * 64
_LAST_LINE_BYTES = 1 << 20
"""No line is longer: the last one is found by reading so far back."""


class Entry(msgspec.Struct, frozen=True):
    """One act.  `actor`: learner, operator or worker; `at`: ISO 8601, UTC."""

    at: str
    actor: str
    act: str
    details: dict[str, Any]
    before: str


class Verdict(msgspec.Struct, frozen=True):
    """What a check of the whole file found.  `anchor`: lines and hash of the last one."""

    lines: int
    torn: int
    anchor: str


class AuditLog:
    """Appends to one file, which need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, settings: Settings) -> AuditLog:
        """The log that these settings name; by default it lies beside the state."""
        return cls(settings.security.audit_log or settings.store.directory / FILE_NAME)

    def append(self, actor: str, act: str, **details: Any) -> None:
        """Write one act and wait until it is on the disk.  Raises: AuditError."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                last, is_whole = _last_line(file)
                entry = Entry(
                    datetime.now(UTC).isoformat(timespec="milliseconds"),
                    actor,
                    act,
                    details,
                    NOTHING_BEFORE if last is None else _hash(last),
                )
                file.write((b"" if is_whole else b"\n") + msgspec.json.encode(entry) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise AuditError(
                f"{act} cannot be written to the audit log {self.path}: {error}; make room or set "
                "security.audit_log to a file that can be written"
            ) from error

    def verify(self, anchor: str | None = None) -> Verdict:
        """Follow the chain from the first line to the last.

        `anchor`: what an earlier check returned; its line must still stand where it stood.
        Raises: AuditError naming the first line that does not fit, or that is missing.
        """
        wanted, wanted_hash = _parse(anchor) if anchor else (0, "")
        before, count, torn = NOTHING_BEFORE, 0, 0
        try:
            with self.path.open("rb") as file:
                for line in file:
                    count += 1
                    entry = _decode(line)
                    torn += entry is None
                    # A torn line names nothing; the line after it vouches for it.
                    if entry is not None and entry.before != before:
                        raise AuditError(
                            f"{self.path}: line {count} does not continue line {count - 1}: a line "
                            "there was changed, removed or put in; compare with a copy of the log"
                        )
                    before = _hash(line.rstrip(b"\n"))
                    if count == wanted and before != wanted_hash:
                        raise AuditError(f"{self.path}: line {count} is not the one of {anchor}")
        except OSError as error:
            raise AuditError(f"the audit log {self.path} cannot be read: {error}") from error
        if count < wanted:
            raise AuditError(
                f"{self.path} ends after {count} lines, and had {wanted}: its end was cut off"
            )
        return Verdict(count, torn, f"{count}:{before}")


def _last_line(file: Any) -> tuple[bytes | None, bool]:  # Any: a binary file, opened to append
    """The last line, None in an empty file, and whether it was written to its end."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - _LAST_LINE_BYTES))
    tail = file.read()
    if not tail:
        return None, True
    return tail.rstrip(b"\n").rsplit(b"\n", 1)[-1], tail.endswith(b"\n")


def _decode(line: bytes) -> Entry | None:
    try:
        return msgspec.json.decode(line, type=Entry)
    except msgspec.DecodeError:
        return None


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _parse(anchor: str) -> tuple[int, str]:
    """Raises: AuditError."""
    number, _, digest = anchor.partition(":")
    if not number.isdecimal() or len(digest) != len(NOTHING_BEFORE):
        raise AuditError(f"anchor {anchor!r} is not LINES:SHA256, as `audit verify` prints it")
    return int(number), digest
