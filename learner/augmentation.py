"""Other histories and other texts that would mean the same: more to learn from the same events.

Sequences (Xie et al. 2022, CL4SRec; here the augmented window replaces the original in the step):

    crop      keep one run of the window's events
    mask      drop some events, as if they had not happened
    reorder   shuffle a short run of events among themselves

Texts lose some of their words (Iyyer et al. 2015, word dropout).  Whatever is random is drawn from
a generator that belongs to the step, so a resumed round draws the same.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from learner.model import Batch

CROP_SHARE, MASK_SHARE, REORDER_SHARE = 0.6, 0.3, 0.3
"""Of a window's events: kept by a crop, dropped by a mask, shuffled by a reorder."""
LEAST_EVENTS = 4
"""Shorter windows are left alone: nothing would be left of them."""

Places = npt.NDArray[np.int64]


def crop(events: int, rng: np.random.Generator) -> Places:
    """Which of a window's events stay, and in which order."""
    size = max(int(events * CROP_SHARE), 2)
    start = int(rng.integers(events - size + 1))
    return np.arange(start, start + size)


def mask(events: int, rng: np.random.Generator) -> Places:
    """As `crop`."""
    kept = np.flatnonzero(rng.random(events) >= MASK_SHARE)
    return kept if len(kept) else np.arange(events)


def reorder(events: int, rng: np.random.Generator) -> Places:
    """As `crop`; the first event stays where it is, since it is predicted from nothing."""
    size = max(int(events * REORDER_SHARE), 2)
    start = int(rng.integers(1, events - size + 1))
    order = np.arange(events)
    order[start : start + size] = rng.permutation(order[start : start + size])
    return order


WAYS: tuple[Callable[[int, np.random.Generator], Places], ...] = (crop, mask, reorder)


def augment_sequences(batch: Batch, share: float, rng: np.random.Generator) -> Batch:
    """The batch with about `share` of its windows changed, each in one of three ways.

    Events move together with what is to be predicted of them; a window's last event, which is
    only ever a target, stays.  Gaps over dropped events add up; shuffled events keep the times of
    their places.
    """
    columns = {name: getattr(batch, name).clone() for name in Batch.__slots__}
    for row in range(len(batch.items)):
        inputs = int(batch.mask[row].sum())
        if inputs < LEAST_EVENTS or rng.random() >= share:
            continue
        order = WAYS[int(rng.integers(len(WAYS)))](inputs, rng)
        _rearrange(batch, columns, row, inputs, order)
    return Batch(**columns)


def _rearrange(
    batch: Batch, columns: dict[str, torch.Tensor], row: int, inputs: int, order: Places
) -> None:
    at = torch.from_numpy(order).to(batch.items.device)
    size = len(order)
    for name in ("items", "actions", "values"):
        columns[name][row, :size] = getattr(batch, name)[row, at]
    times = batch.gaps_s[row, :inputs].nan_to_num(0.0).cumsum(0)
    kept = times[torch.sort(at).values]
    columns["gaps_s"][row, 0] = batch.gaps_s[row, 0]
    columns["gaps_s"][row, 1:size] = kept[1:] - kept[:-1]
    columns["mask"][row, size:] = False
    goals = torch.cat([at, at.new_tensor([inputs])])
    for name in ("targets", "weights", "verdicts"):
        columns[name][row] = 0
        columns[name][row, : size + 1] = getattr(batch, name)[row, goals]
    if int(order[0]) != 0:
        # The start profile predicts a user's very first event and no other.
        columns["weights"][row, 0], columns["verdicts"][row, 0] = 0.0, 0


def drop_words(text: str, share: float, rng: np.random.Generator) -> str:
    """The text without about `share` of its words; one word at least is left.

    >>> drop_words("one two three four", 0.5, np.random.default_rng(1))
    'one two four'
    """
    words = text.split(" ")
    kept = rng.random(len(words)) >= share
    if not kept.any():
        kept[int(rng.integers(len(words)))] = True
    return " ".join(word for word, stays in zip(words, kept.tolist(), strict=True) if stays)
