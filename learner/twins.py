"""From a release to its trainable twin over today's catalogue, and back to an item table."""

from __future__ import annotations

import numpy as np

from learner.catalogue import Catalogue
from learner.model import HeadModel, from_head
from learner.round_types import Parent
from profiles.head import embed_items
from profiles.layers import Floats
from profiles.release import ItemTable


def twin_of(parent: Parent, catalogue: Catalogue, counts: Floats, dropout: float) -> HeadModel:
    """The parent's head with its items' collaborative parts; unknown items begin at zero.

    The table holds final biases g·b + (1-g)·new_item_bias; the twin trains b.
    Shapes: counts (N,) events behind each catalogue item, the round's included.
    """
    items, n, d = parent.items, len(catalogue), parent.head.shape.dim
    fallback = parent.head.new_item_bias[0]
    ids, bias = np.zeros((n, d), np.float32), np.full(n, fallback, np.float32)
    rows = catalogue.rows(items.keys)
    kept = rows >= 0
    ids[rows[kept]] = items.ids[kept]
    gate = items.counts / (items.counts + parent.head.id_gate[0])
    known = kept & (gate > 0)
    own = items.bias - (1.0 - gate) * fallback
    bias[rows[known]] = own[known] / gate[known]
    return from_head(parent.head, n, ids, bias, counts, dropout, catalogue.shown)


def table_of(model: HeadModel, catalogue: Catalogue, text: Floats) -> ItemTable:
    """The catalogue as the trained twin places it.  Shapes: text (N, T)."""
    head, counts = model.to_head(), model.counts.cpu().numpy().copy()
    ids = model.ids.detach().float().cpu().numpy().copy()
    return ItemTable(
        keys=catalogue.keys,
        text_keys=catalogue.text_keys,
        vectors=embed_items(head, text, ids, counts, catalogue.shown),
        ids=ids,
        bias=model.item_bias().detach().float().cpu().numpy().copy(),
        counts=counts,
    )
