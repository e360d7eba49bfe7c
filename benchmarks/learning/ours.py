"""Our steps: the product's own parts in the order in which `learner.trainer` calls them."""

from __future__ import annotations

import sys

import numpy as np
import torch

from benchmarks.clocks import clock_of
from benchmarks.learning.task import Task
from benchmarks.learning.timing import Steps
from learner.optimisation import Optimisers


def our_steps(task: Task, steps: int) -> Steps:
    """One step that is not timed, then `steps` that are."""
    text = task.reset()
    optimisers = Optimisers(
        task.head, [], dict(task.language.weights()), task.learner, 1.0, steps + 1
    )
    task.head.train()
    losses: list[float] = []
    examples: list[int] = []
    tokens: list[int] = []
    ends: list[float] = []
    clock = clock_of(task.device)
    for number in range(steps + 1):
        batch = task.batch(number)
        used = task.rows_of(batch)
        read = text.read_some(used, sys.maxsize, np.random.default_rng(number))
        loss = task.loss(read, batch, number)
        optimisers.step(loss, number, with_language=True)
        losses.append(loss.item())
        ends.append(clock())
        examples.append(int((batch.weights > 0).sum()))
        tokens.append(int(task.tokens[torch.unique(used).cpu()].sum()))
    return Steps(losses, ends[-1] - ends[0], sum(examples[1:]), sum(tokens[1:]))
