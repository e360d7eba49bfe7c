"""The torch twin of `profiles.head.Head`: the same arrays, trainable, over whole sequences.

`tests/unit/test_updater.py` holds the three ways to compute a profile together: numpy step by
step (workers), numpy over a sequence (rebuild at a swap), torch over a batch (here).

The recurrence h' = (1-z)h + zc is a plain loop with a hand-written backward pass, not a parallel
scan: for S = 50, B = D = 64 on one (shared) core it took 1.7 ms forward and backward, against
6.2 ms for a Hillis-Steele scan and 6.3 ms for the loop under autograd.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from profiles.head import Head, HeadShape, count_features, newness
from profiles.layers import GAP_FEATURES, VALUE_CLIP, Floats
from profiles.modalities import Halves, places

LOG_GAP_SCALE = 20.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded windows of events.

    Shapes: items (B, S) catalogue rows; actions (B, S); values (B, S); gaps_s (B, S) seconds,
    NaN for a first event; mask (B, S); targets (B, S+1): column t is the item to predict after t
    events (column 0 from the start profile); weights (B, S+1): its weight, 0 for "no target";
    replayed (B,): which windows come from the past; verdicts (B, S+1): what the event to predict
    says about its item (`learner.sampling.Verdict`).
    """

    items: Tensor
    actions: Tensor
    values: Tensor
    gaps_s: Tensor
    mask: Tensor
    targets: Tensor
    weights: Tensor
    replayed: Tensor
    verdicts: Tensor

    def to(self, device: str) -> Batch:
        """The same batch on another device."""
        return Batch(*(getattr(self, name).to(device) for name in self.__slots__))


class LinearRecurrence(torch.autograd.Function):
    """h_t = h_{t-1} + z_t (c_t - h_{t-1}).

    Shapes: gate z and candidate c (S, B, D), start (B, D) -> states (S, B, D), float32.
    Backward, with g_t the gradient of h_t: g_t = out_t + (1 - z_{t+1}) g_{t+1};
    dc_t = z_t g_t; dz_t = (c_t - h_{t-1}) g_t; dstart = (1 - z_1) g_1.
    """

    # Any: torch's autograd contexts are untyped.
    @staticmethod
    def forward(ctx: Any, gate: Tensor, candidate: Tensor, start: Tensor) -> Tensor:
        gate, candidate, start = gate.float(), candidate.float(), start.float()
        states = torch.empty_like(candidate)
        held = start
        for step in range(len(gate)):
            held = torch.lerp(held, candidate[step], gate[step], out=states[step])
        ctx.save_for_backward(gate, candidate, start, states)
        return states

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gate, candidate, start, states = ctx.saved_tensors
        incoming = grads[0].float()
        keep = 1.0 - gate
        flowing = torch.empty_like(incoming)
        flowing[-1] = incoming[-1]
        for step in range(len(gate) - 2, -1, -1):
            torch.addcmul(incoming[step], keep[step + 1], flowing[step + 1], out=flowing[step])
        before = torch.cat([start[None], states[:-1]])
        return flowing * (candidate - before), flowing * gate, keep[0] * flowing[0]


def gap_features(gaps_s: Tensor) -> Tensor:
    """As `profiles.layers.gap_features`.  Shapes: (...) seconds or NaN -> (..., 4)."""
    first = torch.isnan(gaps_s)
    gap = gaps_s.nan_to_num(0.0).clamp(min=0.0)
    features = torch.stack(
        [
            (torch.log1p(gap) / LOG_GAP_SCALE).clamp(max=1.0),
            torch.exp(-gap / 3600.0),
            torch.exp(-gap / 86_400.0),
            torch.exp(-gap / 2_592_000.0),
        ],
        dim=-1,
    )
    return features.masked_fill(first[..., None], 0.0)


class HeadModel(nn.Module):
    """Trainable head with the items' collaborative parts.

    `arrays` holds one parameter per array of `HeadShape`; `ids` (N, D) and `bias` (N,) belong to
    the N catalogue items.  `counts` (N,) is a buffer: how many events stand behind each item;
    `count_features` (N, 3) and `newness` (N,) follow from it.  `shown` (N, columns) is what the
    items show beside their text, by `profiles.modalities.Modalities.read`.
    """

    def __init__(
        self,
        head: Head,
        ids: Floats,
        bias: Floats,
        counts: Floats,
        dropout: float,
        shown: Halves | None = None,
    ) -> None:
        super().__init__()
        self.shape: HeadShape = head.shape
        self.actions = head.actions
        self.dropout = dropout
        self.arrays = nn.ParameterDict(
            {name: nn.Parameter(torch.tensor(array)) for name, array in head.arrays().items()}
        )
        self.ids = nn.Parameter(torch.tensor(ids))
        self.bias = nn.Parameter(torch.tensor(bias))
        self.counts: Tensor
        self.register_buffer("counts", torch.tensor(counts))
        self.count_features: Tensor
        features = torch.from_numpy(count_features(counts))
        self.register_buffer("count_features", features, persistent=False)
        self.newness: Tensor
        self.register_buffer("newness", torch.from_numpy(newness(counts)), persistent=False)
        self.shown: Tensor | None
        is_read = shown is not None and head.shape.widths
        # Once, not in every step.
        seen = torch.tensor(shown, dtype=torch.float32) if is_read else None
        self.register_buffer("shown", seen, persistent=False)

    def to_head(self) -> Head:
        """The numpy bundle.  Raises: ReleaseRefused (head-not-finite) after a bad step."""
        arrays: dict[str, Floats] = {
            name: parameter.detach().float().cpu().numpy().copy()
            for name, parameter in self.arrays.items()
        }
        return Head.from_arrays(self.shape, self.actions, arrays)

    def set_new_item_gain(self, gain: float) -> None:
        """How much further the scores of new items reach, once served (`served_vectors`)."""
        with torch.no_grad():
            self.arrays["new_item_gain"].fill_(gain)

    def gate(self, ids_kept: Tensor | None = None) -> Tensor:
        """g(n) = n / (n + k), 0 where the collaborative part is hidden.  Shapes: -> (N,)."""
        gate: Tensor = self.counts / (self.counts + self.arrays["id_gate"][0])
        return gate if ids_kept is None else gate * ids_kept

    def item_vectors(self, text: Tensor, ids_kept: Tensor | None = None) -> Tensor:
        """As training sees the catalogue: no item's vector longer than another's.

        `ids_kept` (N,) of 0 and 1 hides the collaborative part of some items, so that the model
        stays able to place an item by its text alone.
        Shapes: text (N, T) -> (N, D).
        """
        a = self.arrays
        content = text @ a["text_weight"] + a["text_bias"]
        if self.shown is not None:
            content = self._fused(content, self.shown)
        mixed = content + self.gate(ids_kept)[:, None] * self.ids
        mixed = mixed + self.count_features @ a["count"]
        return self._norm(mixed, a["item_gain"], a["item_bias"])

    def _fused(self, content: Tensor, shown: Tensor) -> Tensor:
        """As `profiles.head.fused`.  Shapes: content (N, D), shown (N, columns) -> (N, D)."""
        a, joined = self.arrays, content
        for m, place in enumerate(places(self.shape.widths)):
            weight = a["vector_weight"][place.weights]
            seen = shown[:, place.vector] @ weight + a["vector_bias"][m]
            logit = content @ a["gate_text"][m] + seen @ a["gate_vector"][m] + a["gate_bias"][m]
            joined = joined + (shown[:, place.present] * torch.sigmoid(logit))[:, None] * seen
        return joined

    def served_vectors(self, text: Tensor) -> Tensor:
        """As `profiles.head.embed_items`, for the whole catalogue.  (N, T) -> (N, D).

        Training leaves the gain of new items out: likelihood would pay for it with their bias,
        because most new items stay unpopular; that they are shown all the same is a choice.
        """
        longer: Tensor = 1.0 + (self.arrays["new_item_gain"] - 1.0) * self.newness
        vectors: Tensor = self.item_vectors(text) * longer[:, None]
        return vectors

    def item_bias(self, ids_kept: Tensor | None = None) -> Tensor:
        """Score bias of every item: its own as far as events stand behind it.  -> (N,)."""
        gate = self.gate(ids_kept)
        bias: Tensor = gate * self.bias + (1.0 - gate) * self.arrays["new_item_bias"]
        return bias

    def profiles(self, vectors: Tensor, batch: Batch) -> Tensor:
        """Profile before any event and after each.

        Shapes: vectors (N, D), batch (B, S) -> (B, S+1, D).
        """
        a = self.arrays
        gaps = gap_features(batch.gaps_s)
        values = batch.values.clamp(-VALUE_CLIP, VALUE_CLIP)
        x = F.embedding(batch.items, vectors) + F.embedding(batch.actions, a["action"])
        x = x + values[..., None] * a["value"] + gaps @ a["gap"]
        # One imagined event in front: the profile of a user who has done nothing yet.
        x = torch.cat([torch.zeros_like(x[:, :1]), x], dim=1)
        mask = batch.mask.to(x.dtype)[..., None]
        for layer in range(self.shape.layers):
            x = self._block(layer, x, gaps, mask)
        return self._norm(x, a["final_gain"], a["final_bias"])

    def _block(self, layer: int, x: Tensor, gaps: Tensor, mask: Tensor) -> Tensor:
        a, d = self.arrays, self.shape.dim
        users = x.shape[0]
        u = self._norm(x[:, 1:], a["norm_gain"][layer], a["norm_bias"][layer])
        mixed = u @ a["mix_weight"][layer] + a["mix_bias"][layer]
        gate = torch.sigmoid(mixed[..., :d] + gaps @ a["mix_gap"][layer]) * mask
        start = a["start"][layer].expand(users, d)
        trail: Tensor = LinearRecurrence.apply(
            gate.transpose(0, 1), mixed[..., d:].transpose(0, 1), start
        )
        held = torch.cat([start[:, None], trail.transpose(0, 1)], dim=1)
        y = x + self._drop(held @ a["out_weight"][layer])
        u = self._norm(y, a["ff_gain"][layer], a["ff_bias"][layer])
        inner = F.silu(u @ a["ff_in"][layer] + a["ff_in_bias"][layer])
        return y + self._drop(inner @ a["ff_out"][layer] + a["ff_out_bias"][layer])

    def logits(self, profiles: Tensor, vectors: Tensor, bias: Tensor) -> Tensor:
        """Scores.  Shapes: profiles (M, D), vectors (N, D), bias (N,) -> (M, N)."""
        scores: Tensor = profiles @ vectors.T * self.arrays["score_scale"] + bias
        return scores

    def _norm(self, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        return F.layer_norm(x.float(), (x.shape[-1],), gain, bias)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


def from_head(
    head: Head,
    items: int,
    ids: Floats | None = None,
    bias: Floats | None = None,
    counts: Floats | None = None,
    dropout: float = 0.0,
    shown: Halves | None = None,
) -> HeadModel:
    """A trainable twin of `head` over `items` catalogue items; what is not given is zero."""
    d = head.shape.dim
    return HeadModel(
        head,
        np.zeros((items, d), np.float32) if ids is None else ids,
        np.zeros(items, np.float32) if bias is None else bias,
        np.zeros(items, np.float32) if counts is None else counts,
        dropout,
        shown,
    )


assert GAP_FEATURES == 4, "gap_features here and in profiles.layers must agree"
