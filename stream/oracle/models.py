"""Releases as the oracle uses them: a head, and a vector for every item of its catalogue.

Items that are newer than a release are encoded from their text by the release's own adapter, as a
worker does; for that, and only then, the language model is loaded.  An item whose text changed in
between has had several vectors: it stays unknown, and who has it is not judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profiles.errors import ReleaseRefused
from profiles.head import Head, embed_items
from profiles.layers import Floats
from profiles.manifest import Manifest, read_manifest
from profiles.registry import ReleaseStore
from profiles.release import Expected, Release, open_release
from profiles.settings.learning import ModelSettings
from profiles.updater import KNOWN_ITEM_EVENTS
from profiles.wire import key64
from stream.oracle.catalogue import Catalogue

Encode = Callable[[Release, list[str]], Floats]
"""Text vectors under a release's adapter.  Shapes: -> (texts, T)."""


@dataclass(frozen=True, slots=True)
class Model:
    """One release over the catalogue.

    Shapes: vectors (N, D), bias (N,), known (N,); read (N + M, D) also has the M texts that users
    said.
    """

    manifest: Manifest
    head: Head
    vectors: Floats
    bias: Floats
    known: npt.NDArray[np.bool_]
    read: Floats

    @property
    def release_id(self) -> str:
        return self.manifest.release_id


def load_models(
    store: ReleaseStore,
    wanted: Iterable[int],
    catalogue: Catalogue,
    encode: Encode,
    texts: Sequence[str] = (),
) -> dict[int, Model]:
    """Models of those wanted releases (hashed names) that the store has whole and unharmed."""
    keys = set(wanted)
    models: dict[int, Model] = {}
    for name in store.names():
        if key64(name) in keys:
            try:
                release = _open(store, name)
            except ReleaseRefused:
                continue
            models[key64(name)] = lay_over(release, catalogue, encode, texts)
    return models


def lay_over(
    release: Release, catalogue: Catalogue, encode: Encode, texts: Sequence[str] = ()
) -> Model:
    """A release's vectors by catalogue row, and behind them of the texts that users said."""
    table = release.items
    size, dim = len(catalogue.ids), release.head.shape.dim
    at = {key: row for row, key in enumerate(table.keys.tolist())}
    inside = np.array([at.get(key, -1) for key in catalogue.keys.tolist()], dtype=np.int64)
    known = inside >= 0
    known[known] = table.text_keys[inside[known]] == catalogue.text_keys[known]
    known &= catalogue.is_stable
    vectors = np.zeros((size, dim), dtype=np.float32)
    bias = np.full(size, release.head.new_item_bias[0], dtype=np.float32)
    vectors[known], bias[known] = table.vectors[inside[known]], table.bias[inside[known]]
    fresh = np.flatnonzero((inside < 0) & catalogue.is_stable)
    if len(fresh):
        text = encode(release, [catalogue.texts[row] for row in fresh.tolist()])
        nothing = np.zeros((len(fresh), dim), dtype=np.float32)
        new = np.zeros(len(fresh), np.float32)
        vectors[fresh] = embed_items(release.head, text, nothing, new, catalogue.shown[fresh])
        known[fresh] = True
    read = vectors
    if texts:
        nothing = np.zeros((len(texts), dim), dtype=np.float32)
        count = np.full(len(texts), KNOWN_ITEM_EVENTS, np.float32)
        said = embed_items(release.head, encode(release, list(texts)), nothing, count)
        read = np.concatenate([vectors, said])
    return Model(release.manifest, release.head, vectors, bias, known, read)


def encoder_of(settings: ModelSettings) -> Encode:
    """The language model, loaded when the first text asks for it."""

    def encode(release: Release, texts: list[str]) -> Floats:
        from profiles.encoder import TextEncoder

        return TextEncoder.load(settings, release.adapter_directory).encode(texts)

    return encode


def _open(store: ReleaseStore, name: str) -> Release:
    """Hashes and shapes are checked against the manifest itself."""
    directory = store.fetch(name)
    own = read_manifest(directory)
    return open_release(
        directory,
        Expected(
            own.base_sha256,
            own.shape.dim,
            own.shape.layers,
            own.lora_rank,
            tuple(own.actions),
            own.pooling,
            own.max_tokens,
            own.peft_method,
            own.shape.widths,
        ),
    )
