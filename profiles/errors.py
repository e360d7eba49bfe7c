"""Every error driftline raises on purpose, in one tree.

    DriftlineError               1
    ├── SettingsError            2   a setting, a flag or an argument is wrong
    ├── BrokerError              3   no Kafka: unreachable, would not start, no Java, no jars
    ├── TopicError               4   a topic is missing or is not shaped as the contract says
    ├── StoreError               5   the local state store cannot be opened, read or written
    │   └── StoreCorruptError    6   it opened, and what it holds is damaged
    ├── ReleaseError             7   a release cannot be written, found or read
    │   └── ReleaseRefused       8   a release was read and is wrong; `.reason` says how
    ├── BadMessage               9   one message breaks the contract; `.reason` says how
    ├── ModelError              10   a language model or head cannot be loaded or used
    ├── DatasetError            11   a data set is absent, altered or not in its known form
    ├── LearnerError            12   a learning round or its checkpoint failed
    ├── AuditError              13   the audit log cannot be written, or its chain is broken
    ├── NoAnswerError           14   no worker answered a request in time
    └── SealError               15   what is encrypted cannot be opened with the keys given

The number is the class's `exit_code`: what the command line exits with when that error ends it.
A message says what failed, with which value, and what to do next; `remedy` says where to turn with
any error of its class, for programs (`--json`). Catch the root only at an edge.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AuditError",
    "BadMessage",
    "BrokerError",
    "DatasetError",
    "DriftlineError",
    "LearnerError",
    "ModelError",
    "NoAnswerError",
    "ReleaseError",
    "ReleaseRefused",
    "SealError",
    "SettingsError",
    "StoreCorruptError",
    "StoreError",
    "TopicError",
]


class DriftlineError(Exception):
    """The root: anything driftline refuses or cannot do, as opposed to a defect in its code."""

    exit_code: ClassVar[int] = 1
    remedy: ClassVar[str] = "read the message: it says what to do next"


class SettingsError(DriftlineError):
    """A setting, flag or argument is wrong; all bad ones of a settings file come in one message."""

    exit_code = 2
    remedy = (
        "correct the value where it is set: the option, the variable, or the "
        "file; docs/reference/settings.md lists all"
    )


class BrokerError(DriftlineError):
    """Kafka cannot be reached or started, or its Java runtime or its jars cannot be had."""

    exit_code = 3
    remedy = (
        "`driftline doctor` says what is in the way between this machine and "
        "Kafka; check `broker.*`"
    )


class TopicError(DriftlineError):
    """A topic is missing, or its partitions or cleanup policy differ from the contract."""

    exit_code = 4
    remedy = (
        "compare with `driftline topics check`; `driftline topics create` makes what is missing"
    )


class StoreError(DriftlineError):
    """The local state store cannot be opened, read or written."""

    exit_code = 5
    remedy = "see that `store.directory` is on a disk with room, and that one process uses it"


class StoreCorruptError(StoreError):
    """The store opened but its contents are damaged: rebuild it from the changelog."""

    exit_code = 6
    remedy = "start the worker again: it sets the store aside and restores from the changelog"


class ReleaseError(DriftlineError):
    """A release cannot be written to, found in or read from its store."""

    exit_code = 7
    remedy = "`driftline releases list` names those that there are; check `store.releases`"


class ReleaseRefused(ReleaseError):
    """A release was read, checked and found wrong; the one that serves keeps serving.

    `reason` is a short slug for metrics and logs; the message is for people.

    >>> refused = ReleaseRefused("bad-hash", "head.safetensors does not match its SHA-256")
    >>> refused.reason, str(refused)
    ('bad-hash', 'head.safetensors does not match its SHA-256')
    """

    exit_code = 8
    remedy = "serve another one (`driftline releases rollback`), or let the learner make the next"

    def __init__(self, reason: str, message: str) -> None:
        # Both go to the base class: an exception is pickled as its class and its args.
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message


class BadMessage(DriftlineError):
    """One message breaks the contract: it is counted, dead-lettered and skipped.

    `reason` is a short slug, the value of the dead-letter header and of the metric's label.

    >>> bad = BadMessage("unknown-action", "action 'frobnicate' has no weight; add it to actions")
    >>> bad.reason
    'unknown-action'
    """

    exit_code = 9
    remedy = (
        "put right what the message says and send it again; docs/reference/schemas has the form"
    )

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message


class ModelError(DriftlineError):
    """A language model, adapter or head cannot be loaded, or its tensors do not fit."""

    exit_code = 10
    remedy = "check `model.*`; `driftline doctor` looks for the language model's weights"


class DatasetError(DriftlineError):
    """A data set is absent, does not match its known hash, or is not in its known form."""

    exit_code = 11
    remedy = "check path, format and columns: docs/how-to/bring-your-data.md"


class LearnerError(DriftlineError):
    """A learning round failed, or its checkpoint cannot be saved or resumed."""

    exit_code = 12
    remedy = "see the learner's log; started again, it goes on from its checkpoint"


class AuditError(DriftlineError):
    """The audit log cannot be written or read, or its chain is broken."""

    exit_code = 13
    remedy = "keep the file as it is, and compare it with a copy: docs/production.md"


class NoAnswerError(DriftlineError):
    """No worker answered a request in time; it may still be answered later."""

    exit_code = 14
    remedy = "see that a worker is up and ready (`/readyz`, `driftline doctor`), then ask again"


class SealError(DriftlineError):
    """What is encrypted cannot be opened: the master key is missing, wrong, or lacks a version."""

    exit_code = 15
    remedy = "give the process the key file that has the version which the message names"
