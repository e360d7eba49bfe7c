"""What a round leaves on disk so that a kill is harmless: its plan, its checkpoint, its outcome."""

from __future__ import annotations

from pathlib import Path

import msgspec

from learner.checkpoint import Seal, Unseal, as_it_is, write_atomically
from learner.rounds import Plan, load_plan, save_plan
from learner.sealed_disk import LearnerKeys


class Finished(msgspec.Struct, frozen=True):
    """What a job came to, as saved before it is announced.  `number` 0 is the bootstrap."""

    number: int
    release_id: str
    promote: bool
    reason: str


class RoundFiles:
    """The files of the present round, in the learner's directory; sealed where there are keys."""

    def __init__(self, directory: Path, keys: LearnerKeys | None) -> None:
        self._keys = keys
        self._plan = directory / "round" / "plan.msgpack"
        self._outcome = directory / "round" / "outcome.json"
        self.checkpoint = directory / "round" / "checkpoint.safetensors"

    def begin(self, plan: Plan) -> None:
        """Write a new round's plan; nothing of another one is left to go on from."""
        self.checkpoint.unlink(missing_ok=True)
        save_plan(self._plan, plan, self.seals()[0])

    def plan(self) -> Plan | None:
        """The plan of a round that has not ended."""
        if not self._plan.is_file():
            return None
        return load_plan(self._plan, self.seals()[1])

    def end(self, finished: Finished) -> Finished:
        """Write down what a job came to; from the job's thread."""
        write_atomically(self._outcome, msgspec.json.encode(finished))
        return finished

    def finished(self) -> Finished | None:
        """What was written down and perhaps not announced."""
        try:
            return msgspec.json.decode(self._outcome.read_bytes(), type=Finished)
        except (OSError, msgspec.DecodeError):
            return None

    def clear(self) -> None:
        """The round is over: its files go, and with them the key that sealed them."""
        for path in (self._outcome, self._plan, self.checkpoint):
            path.unlink(missing_ok=True)
        if self._keys is not None:
            self._keys.forget_round()

    def seals(self) -> tuple[Seal, Unseal]:
        """How the present round's files are sealed and opened."""
        if self._keys is None:
            return as_it_is, as_it_is
        vault = self._keys.round_vault()
        return vault.seal, vault.open
