"""Everything learned outside the language model: one frozen bundle of arrays, float32.

The learner writes it as `head.safetensors` of a release; workers read it and never change it.
`HeadShape` fixes every array's shape, so a release of another shape is refused before a single
vector is used.  The torch twin that trains these arrays is `learner/model.py`; the two are held
together by a property test (1e-5).

Notation: D width, L blocks, F feed-forward width, T text width, A actions, G gap features, M
modalities beside the text, of V numbers together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from profiles.errors import ReleaseRefused
from profiles.layers import GAP_FEATURES, Floats, layer_norm, sigmoid
from profiles.lowest import Lowest
from profiles.modalities import Widths, places

MAX_WEIGHT = 1e4
"""No trained weight comes near; products of larger ones overflow float32."""
COUNT_FEATURES = 3
"""How new an item is, how very new, and the log of its events (`count_features`)."""

NEW_ITEM_EVENTS = np.float32(7.0)
"""Events after which an item counts as half new (`newness`)."""


@dataclass(frozen=True, slots=True)
class HeadShape:
    """The numbers that fix every array of a head.

    `modalities`: `profiles.modalities.Modalities.widths`; absent where there are none, so that
    the names of releases from before there were any stay what they are.
    """

    dim: int
    layers: int
    hidden: int
    text_dim: int
    actions: int
    modalities: Widths | msgspec.UnsetType = msgspec.UNSET

    @property
    def widths(self) -> Widths:
        """Name and number of dimensions of each modality."""
        return self.modalities or ()

    def arrays(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every array, in file order."""
        d, n, f = self.dim, self.layers, self.hidden
        found: dict[str, tuple[int, ...]] = {
            "text_weight": (self.text_dim, d),
            "text_bias": (d,),
            "count": (COUNT_FEATURES, d),
            "item_gain": (d,),
            "item_bias": (d,),
            "action": (self.actions, d),
            "value": (d,),
            "gap": (GAP_FEATURES, d),
            "norm_gain": (n, d),
            "norm_bias": (n, d),
            "mix_weight": (n, d, 2 * d),
            "mix_bias": (n, 2 * d),
            "mix_gap": (n, GAP_FEATURES, d),
            "out_weight": (n, d, d),
            "ff_gain": (n, d),
            "ff_bias": (n, d),
            "ff_in": (n, d, f),
            "ff_in_bias": (n, f),
            "ff_out": (n, f, d),
            "ff_out_bias": (n, d),
            "final_gain": (d,),
            "final_bias": (d,),
            "start": (n, d),
            "new_item_bias": (1,),
            "new_item_gain": (1,),
            "score_scale": (1,),
            "id_gate": (1,),
        }
        if self.widths:
            m = len(self.widths)
            found |= {
                "vector_weight": (sum(width for _, width in self.widths), d),
                "vector_bias": (m, d),
                "gate_text": (m, d),
                "gate_vector": (m, d),
                "gate_bias": (m,),
            }
        return found


def _none() -> Floats:
    return np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Head:
    """The arrays themselves; shapes as in `HeadShape.arrays`.

    `start` is the state of a user without history; `new_item_bias` the score bias of an item
    that no event has touched; `new_item_gain` how much longer its vector is than another's;
    `score_scale` multiplies profile · item; `id_gate` is the k of g(n) = n / (n + k).
    `vector_weight` and those after it are empty where the shape has no modalities (`fused` has
    their meaning).  `lowest` follows from the others.
    """

    shape: HeadShape
    actions: tuple[str, ...]
    text_weight: Floats
    text_bias: Floats
    count: Floats
    item_gain: Floats
    item_bias: Floats
    action: Floats
    value: Floats
    gap: Floats
    norm_gain: Floats
    norm_bias: Floats
    mix_weight: Floats
    mix_bias: Floats
    mix_gap: Floats
    out_weight: Floats
    ff_gain: Floats
    ff_bias: Floats
    ff_in: Floats
    ff_in_bias: Floats
    ff_out: Floats
    ff_out_bias: Floats
    final_gain: Floats
    final_bias: Floats
    start: Floats
    new_item_bias: Floats
    new_item_gain: Floats
    score_scale: Floats
    id_gate: Floats
    vector_weight: Floats = field(default_factory=_none)
    vector_bias: Floats = field(default_factory=_none)
    gate_text: Floats = field(default_factory=_none)
    gate_vector: Floats = field(default_factory=_none)
    gate_bias: Floats = field(default_factory=_none)
    lowest: Lowest = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        lowest = Lowest.of(
            self.action,
            self.gap,
            self.value,
            self.norm_gain[0],
            self.norm_bias[0],
            self.mix_weight[0],
            self.mix_bias[0],
            self.mix_gap[0],
        )
        object.__setattr__(self, "lowest", lowest)

    @classmethod
    def from_arrays(
        cls, shape: HeadShape, actions: tuple[str, ...], arrays: dict[str, Floats]
    ) -> Head:
        """Check and bundle.

        Raises: ReleaseRefused (head-shape, head-dtype, head-not-finite, head-norm, head-gate)
        naming the array.
        """
        wanted = shape.arrays()
        if set(arrays) != set(wanted):
            odd = sorted(set(arrays) ^ set(wanted))
            raise ReleaseRefused("head-shape", f"head has missing or unknown arrays: {odd}")
        for name, expected in wanted.items():
            array = arrays[name]
            if array.dtype != np.float32:
                raise ReleaseRefused("head-dtype", f"{name} is {array.dtype}, not float32")
            if array.shape != expected:
                raise ReleaseRefused("head-shape", f"{name} is {array.shape}, not {expected}")
            if not np.isfinite(array).all():
                raise ReleaseRefused("head-not-finite", f"{name} holds NaN or infinity")
            if array.size and float(np.abs(array).max()) > MAX_WEIGHT:
                raise ReleaseRefused("head-norm", f"{name} holds a number beyond {MAX_WEIGHT:g}")
        if not arrays["id_gate"][0] > 0.0:
            # g(n) = n / (n + k) would divide by nought for a new item.
            raise ReleaseRefused("head-gate", f"id_gate is {arrays['id_gate'][0]}, not above 0")
        return cls(shape=shape, actions=actions, **arrays)

    def arrays(self) -> dict[str, Floats]:
        """Name to array, ready to be saved."""
        return {name: getattr(self, name) for name in self.shape.arrays()}


def count_features(counts: Floats) -> Floats:
    """What the model sees of the number of events behind an item.

    Users who try the unknown and users who follow the crowd differ more than any two genres; a
    direction for it in every item's vector lets a profile say which of them it is.
    Shapes: counts (N,) -> (N, 3), float32.

    >>> count_features(np.array([0.0, 4.0], np.float32)).astype(float).round(2).tolist()
    [[1.0, 1.0, 0.0], [0.56, 0.2, 0.27]]
    """
    n = counts.astype(np.float32)
    features = np.stack([5.0 / (5.0 + n), 1.0 / (1.0 + n), np.log1p(n) / 6.0], axis=-1)
    out: Floats = features.astype(np.float32)
    return out


def newness(counts: Floats) -> Floats:
    """How far an item is new: 1 without events, a half at seven, next to nothing from twenty on.

    Shapes: counts (N,) -> (N,), float32.

    >>> newness(np.array([0.0, 4.0, 7.0, 21.0], np.float32)).astype(float).round(2).tolist()
    [1.0, 0.9, 0.5, 0.01]
    """
    out: Floats = (1.0 / (1.0 + (counts.astype(np.float32) / NEW_ITEM_EVENTS) ** 4)).astype(
        np.float32
    )
    return out


def fused(head: Head, content: Floats, shown: npt.NDArray[np.floating[Any]]) -> Floats:
    """Text and what else an item shows: content + sum over modalities of z · v,
    v = V · vector + b, z = sigmoid(u · content + w · v + c), and z = 0 where the item lacks it.

    The gate of a gated multimodal unit (Arevalo et al. 2017, arXiv:1702.01992), one number for
    each item instead of one for each channel: how far to look at the picture of *this* item.
    Shapes: content (N, D), shown (N, columns) rows of `Modalities.read` -> (N, D).
    """
    joined = content.copy()
    for m, place in enumerate(places(head.shape.widths)):
        present = shown[:, place.present].astype(np.float32)
        vector = shown[:, place.vector].astype(np.float32)
        seen = vector @ head.vector_weight[place.weights] + head.vector_bias[m]
        logit = content @ head.gate_text[m] + seen @ head.gate_vector[m] + head.gate_bias[m]
        joined += (present * sigmoid(logit))[:, None] * seen
    return joined


def embed_items(
    head: Head,
    text: Floats,
    ids: Floats,
    counts: Floats,
    shown: npt.NDArray[np.floating[Any]] | None = None,
) -> Floats:
    """Item embeddings: LayerNorm(content + C · features(n) + g(n) · id), g(n) = n / (n + k),
    content = W · text + b joined by what else the item shows (`fused`), made longer by
    `new_item_gain` as far as the item is new.

    Shapes: text (N, T), ids (N, D), counts (N,) events seen, shown (N, columns) rows of
    `Modalities.read`, None for words and whatever else has nothing but text -> (N, D), float32.
    A new item has count 0, so its content alone speaks for it.
    """
    gate = counts / (counts + head.id_gate[0])
    content: Floats = text @ head.text_weight + head.text_bias
    if shown is not None and head.shape.widths:
        content = fused(head, content, shown)
    mixed = content + gate[:, None] * ids
    mixed = mixed + count_features(counts) @ head.count
    longer = 1.0 + (head.new_item_gain[0] - 1.0) * newness(counts)
    out: Floats = layer_norm(mixed.astype(np.float32), head.item_gain, head.item_bias)
    out *= longer[:, None]
    return out
