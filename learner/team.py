"""Several processes that learn one round together; what they share is the reading of texts.

Nearly all of a round's time goes into the language model, so that is what is divided: each process
reads a share of the texts, the vectors are summed into one table on all, and every process then
takes the same step of the small head, with the same random draws.  The gradient of the adapter is
the sum over the shares.  So the global batch, the loss and the schedule are those of one process,
up to the order in which floats are added.

The leader (rank 0) has Kafka and the release store; it tells the others what to train.  All must
see `store.directory`, and run on the same kind of machine: a process whose head went another way
by rounding could stop early when the others do not.

A process that dies breaks the connection: the others' next exchange fails, which ends them, and
the round goes on from its checkpoint when they are started again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, Store  # public in torch.distributed
from torch.distributed.rendezvous import rendezvous

from profiles.errors import LearnerError

W = TypeVar("W")
EXCHANGE_S = 600.0
"""Longest wait for the others in an exchange.  Death is noticed at once; this is for hanging."""
POLL_S = 0.2


class Team:
    """This process's place among those that torchrun started."""

    def __init__(self, store: Store, rank: int, size: int) -> None:
        self._store, self.rank, self.size = store, rank, size
        self._told = 0

    @classmethod
    def join(cls) -> Team:
        """Meet the others, as torchrun's environment says.  Raises: LearnerError."""
        has_gpu = torch.cuda.is_available()
        if has_gpu:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        try:
            store, rank, size = next(rendezvous("env://"))
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if has_gpu else "gloo",
                store=PrefixStore("exchange", store),
                rank=rank,
                world_size=size,
                timeout=timedelta(seconds=EXCHANGE_S),
            )
        except (RuntimeError, ValueError) as error:
            raise LearnerError(
                f"the learner's processes do not find each other: {error}; start them with "
                "`torchrun --nproc-per-node N -m stream learn`"
            ) from error
        return cls(PrefixStore("rounds", store), rank, size)

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def tell(self, work: W | None) -> None:
        """The leader's word to all others: work to do, or None for the end."""
        self._store.set(str(self._told), "told")
        self._told += 1
        # torch's own pickling: it stays between processes of one operator.
        dist.broadcast_object_list([work], src=0, device=torch.device("cpu"))

    def listen(self) -> Any:
        """Wait, for days if need be, for what the leader tells."""
        while not self._store.check([str(self._told)]):
            time.sleep(POLL_S)
        self._told += 1
        heard: list[Any] = [None]
        dist.broadcast_object_list(heard, src=0, device=torch.device("cpu"))
        return heard[0]

    def agree(self, answer: bool) -> bool:
        """The leader's answer, on every process."""
        said = torch.tensor([answer])
        dist.broadcast(said, src=0)
        return bool(said)

    def add(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes."""
        dist.all_reduce(tensor)

    def share(self, texts: Sequence[str]) -> list[int]:
        """Which of some texts this process reads: every n-th by length, so that all work alike."""
        order = sorted(range(len(texts)), key=lambda at: (len(texts[at]), texts[at]))
        return order[self.rank :: self.size]

    def read_trainable(
        self,
        read: Callable[[Sequence[str]], Tensor],
        texts: Sequence[str],
        weights: Sequence[Tensor],
        width: int,
    ) -> Tensor:
        """`read(texts)`, each process reading its share, with gradient into all `weights`.

        Shapes: -> (len(texts), width), float32.
        """
        vectors: Tensor = _SharedReading.apply(self, read, texts, width, *weights)
        return vectors

    def leave(self) -> None:
        """Take leave of the others, who leave, too."""
        dist.destroy_process_group()


class _SharedReading(torch.autograd.Function):
    """Forward: the sum of tables in which each process has filled its rows.

    Backward: each process goes back through its own rows, and the weights' gradients are summed.
    The loss above is the same everywhere, so its gradient is not.
    """

    # Any: torch's autograd contexts and what `apply` passes are untyped.
    @staticmethod
    def forward(
        ctx: Any,
        team: Team,
        read: Callable[[Sequence[str]], Tensor],
        texts: Sequence[str],
        width: int,
        *weights: Tensor,
    ) -> Tensor:
        ctx.team, ctx.weights, ctx.mine = team, weights, None
        rows = team.share(texts)
        table = torch.zeros(len(texts), width, device=weights[0].device)
        if rows:
            with torch.enable_grad():
                ctx.mine = read([texts[row] for row in rows])
            ctx.rows = torch.tensor(rows, device=table.device)
            table[ctx.rows] = ctx.mine.detach().float()
        team.add(table)
        return table

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        found: Sequence[Tensor | None] = [None] * len(ctx.weights)
        if ctx.mine is not None:
            towards = grads[0][ctx.rows].to(ctx.mine.dtype)
            found = torch.autograd.grad(ctx.mine, ctx.weights, towards, allow_unused=True)
        flat = torch.cat(
            [
                torch.zeros_like(weight).flatten() if grad is None else grad.flatten()
                for weight, grad in zip(ctx.weights, found, strict=True)
            ]
        )
        ctx.team.add(flat)
        parts = flat.split_with_sizes([weight.numel() for weight in ctx.weights])
        shaped = [part.view_as(w) for part, w in zip(parts, ctx.weights, strict=True)]
        return (None, None, None, None, *shaped)
