"""A round in progress on disk, so that a killed learner goes on where it was.

One safetensors file, written beside its place, fsynced and renamed: it is whole or absent; sealed
where the deployment encrypts.  It holds every weight, both optimisers, the best weights so far and
the position in the schedule; the round's own events are in its plan.  Randomness needs no state:
each epoch and step seeds itself from (seed, round, position).  No pickle.

What names a round is `identity` (parent release, position in the buffer, catalogue and settings
hash): a checkpoint of another round is ignored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor

from learner.sampling import Segment
from profiles.errors import LearnerError, StoreError
from profiles.whole_files import replace_file

Seal = Callable[[bytes], bytes]
Unseal = Callable[[bytes], bytes | None]
"""None: it was sealed with a key that is gone."""


def as_it_is(payload: bytes) -> bytes:
    """Where nothing is encrypted."""
    return payload


class Position(msgspec.Struct, frozen=True):
    """Where in a round: stage number, unit (epoch or step) done in it, steps and examples
    (predicted events, each time they were predicted) done in all."""

    stage: int = 0
    done: int = 0
    step: int = 0
    examples: int = 0
    best_loss: float | None = None
    bad_epochs: int = 0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One saved moment.  `tensors` are named "group/name"."""

    identity: str
    position: Position
    tensors: dict[str, Tensor]


def save_checkpoint(path: Path, checkpoint: Checkpoint, seal: Seal = as_it_is) -> None:
    """Replace the file at `path`, atomically.  Raises: StoreError when the disk refuses."""
    head = {
        "identity": checkpoint.identity,
        "position": msgspec.json.encode(checkpoint.position).decode(),
    }
    tensors = {name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors.items()}
    write_atomically(path, seal(save_bytes(tensors, metadata=head)))


def load_checkpoint(path: Path, identity: str, unseal: Unseal = as_it_is) -> Checkpoint | None:
    """The saved moment of the round named `identity`; None if there is none or it is damaged."""
    if not path.is_file():
        return None
    try:
        payload = unseal(path.read_bytes())
        if payload is None:
            return None
        size = int.from_bytes(payload[:8], "little")
        head = msgspec.json.decode(payload[8 : 8 + size]).get("__metadata__", {})
        if head.get("identity") != identity:
            return None
        tensors = load_bytes(payload)
        position = msgspec.json.decode(head["position"], type=Position)
    except (SafetensorError, OSError, KeyError, AttributeError, msgspec.DecodeError):
        # A damaged checkpoint costs a round begun again, nothing else.
        return None
    return Checkpoint(identity, position, tensors)


def write_atomically(path: Path, payload: bytes) -> None:
    """Write beside, fsync, rename.  Raises: StoreError, which ends the learner: a round that was
    dropped because the disk was full would never be learned, one that is resumed is."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, payload, sync=True)
    except OSError as error:
        raise StoreError(
            f"checkpoint {str(path)!r} cannot be written: {error}; is the disk full? Make room and "
            "start the learner again: it goes on from its last checkpoint"
        ) from error


def digest(*parts: bytes | str) -> str:
    """A short name for some content, for identities.

    >>> digest("a", "b") == digest("a", "b") != digest("ab")
    True
    """
    running = hashlib.blake2b(digest_size=12)
    for part in parts:
        payload = part.encode() if isinstance(part, str) else part
        running.update(len(payload).to_bytes(8, "little") + payload)
    return running.hexdigest()


def optimiser_tensors(prefix: str, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's state, flat: "prefix/parameter number/name"."""
    found: dict[str, Tensor] = {}
    for number, state in optimiser.state_dict()["state"].items():
        for name, value in state.items():
            found[f"{prefix}/{number}/{name}"] = torch.as_tensor(value)
    return found


def restore_optimiser(
    prefix: str, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Put AdamW's state back."""
    state: dict[int, dict[str, Tensor]] = {}
    for full_name, tensor in tensors.items():
        if full_name.startswith(f"{prefix}/"):
            _, number, name = full_name.split("/")
            state.setdefault(int(number), {})[name] = tensor
    whole = optimiser.state_dict()
    whole["state"] = state
    optimiser.load_state_dict(whole)


def group(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of one group, by their own names."""
    return {
        name.removeprefix(f"{prefix}/"): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{prefix}/")
    }


def segments_to_bytes(segments: Sequence[Segment]) -> bytes:
    """Segments as one safetensors payload, for a round's saved input."""
    tensors: dict[str, Tensor] = {
        "user": torch.from_numpy(np.array([s.user for s in segments], np.uint64).view(np.int64)),
        "skipped": torch.tensor([s.skipped for s in segments], dtype=torch.int64),
        "first": torch.tensor([s.first_target for s in segments], dtype=torch.int64),
        "size": torch.tensor([len(s.items) for s in segments], dtype=torch.int64),
    }
    for name in ("items", "ts", "actions", "values", "orders"):
        parts: list[npt.NDArray[np.generic]] = [getattr(s, name) for s in segments]
        joined = np.concatenate(parts) if parts else np.zeros(0)
        if name == "items":
            joined = joined.astype(np.uint64).view(np.int64)
        tensors[name] = torch.from_numpy(joined)
    return save_bytes(tensors)


def segments_from_bytes(payload: bytes) -> list[Segment]:
    """The inverse.  Raises: LearnerError for a damaged payload."""
    try:
        t = {name: tensor.numpy() for name, tensor in load_bytes(payload).items()}
    except SafetensorError as error:
        raise LearnerError(f"a round's saved events are damaged: {error}") from error
    ends = np.cumsum(t["size"])
    starts = ends - t["size"]
    users = t["user"].view(np.uint64)
    return [
        Segment(
            int(users[row]),
            int(t["skipped"][row]),
            int(t["first"][row]),
            t["items"][a:b].view(np.uint64),
            t["ts"][a:b],
            t["actions"][a:b],
            t["values"][a:b],
            t["orders"][a:b],
        )
        for row, (a, b) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True))
    ]
