"""Adversarial training: the loss once more, on item embeddings moved to where it is worst.

Each item's vector is moved along the gradient of the loss, by a share of its own length.  Source:
the fast gradient method on embeddings, Miyato, Dai & Goodfellow 2017; on a recommender's item
embeddings, He et al. 2018 (APR).  Costs a second forward and backward pass through the head; the
language model is read once.
"""

from __future__ import annotations

import torch
from torch import Tensor


def worst_case(loss: Tensor, vectors: Tensor, share: float) -> Tensor:
    """What to add to the vectors to raise the loss most, to first order.

    Rows that the loss does not depend on stay where they are.
    Shapes: loss scalar, a function of vectors (N, D) -> (N, D), without gradient.

    >>> v = torch.tensor([[3.0, 4.0], [1.0, 0.0]], requires_grad=True)
    >>> worst_case(2.0 * v[0, 0], v, 0.1).tolist()
    [[0.5, 0.0], [0.0, 0.0]]
    """
    (gradient,) = torch.autograd.grad(loss, vectors, retain_graph=True)
    length = gradient.norm(dim=-1, keepdim=True)
    unit = torch.where(length > 0, gradient / length.clamp(min=1e-30), gradient)
    moved: Tensor = share * vectors.detach().norm(dim=-1, keepdim=True) * unit
    return moved
