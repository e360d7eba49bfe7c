"""The first release of a deployment, made before any event: sensible from texts alone.

The language model is the frozen base (a LoRA adapter at identity, unless `learner.catalogue_steps`
lets it learn the catalogue's texts first), items are their text vectors in whitened principal
directions, and the recurrence is written down by hand instead of learned: a moving average of the
items a user touched.  Even channels remember for long; odd channels belong to the session, they
follow the last few events and let go when hours pass.  So a profile is about the mean of what the
user liked, recent things first, and score is close to cosine.

Training starts from these arrays, so everything that is zero here sits behind a product with
something that is not, or it would never move.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from safetensors import SafetensorError

from learner.catalogue import Catalogue, make_catalogue
from learner.language import LanguageModel, pick_device
from learner.sampling import ActionWeights
from learner.self_supervised import adapt_to
from learner.text_cache import save_text
from learner.unknown_tokens import UNKNOWN_TOKENS
from profiles.config import Settings
from profiles.encoder import PROBE_TEXTS, base_sha256
from profiles.errors import LearnerError, ReleaseError
from profiles.head import Head, HeadShape, embed_items
from profiles.item_text import item_text
from profiles.items import Item
from profiles.layers import Floats
from profiles.manifest import FORMAT, Manifest, write_manifest
from profiles.modalities import Halves, Modalities, places
from profiles.registry import ReleaseStore
from profiles.release import ItemTable, write_release
from profiles.signing import sign

WHITENING = 0.2
"""Power of the variance taken out of each principal direction: 0 none, 0.5 full whitening."""
LONG_TERM_RATE = 0.05
SESSION_RATE = 0.3
SESSION_HOUR_LOGIT = 3.0
"""What an hour's silence adds to the session channels' gate: half of the old goes at once."""
MEMORY_GAIN = 4.0
"""How much the memory counts against the latest event alone, in the profile."""
SCORE_SCALE = 0.125
ID_GATE = 5.0
"""Events after which an item's collaborative part counts half."""


def principal_directions(text: Floats, dim: int, seed: int) -> tuple[Floats, Floats]:
    """Weights and offset that turn text vectors into `dim` partly whitened coordinates.

    Directions beyond the rank of the catalogue (few items) are filled with seeded orthogonal
    ones, so that later texts still land apart.
    Shapes: text (N, T) -> weight (T, dim), bias (dim,): `text @ weight + bias`.
    """
    width = text.shape[1]
    rng = np.random.default_rng(seed)
    mean = text.mean(axis=0) if len(text) else np.zeros(width, np.float32)
    centred = (text - mean).astype(np.float64)
    cloud = centred.T @ centred / max(len(text), 1)
    variance, directions = np.linalg.eigh(cloud)
    order = np.argsort(-variance)[: min(dim, width)]
    variance, directions = variance[order], directions[:, order]
    floor = max(float(variance.max(initial=0.0)) * 1e-3, 1e-8)
    scaled = directions / np.maximum(variance, floor) ** WHITENING
    if dim > width:
        extra = rng.normal(size=(width, dim - width)) / np.sqrt(width)
        scaled = np.concatenate([scaled, extra], axis=1)
    # Mixed by a random rotation: each channel, long-term or session, then sees all directions.
    rotation, _ = np.linalg.qr(rng.normal(size=(dim, dim)))
    weight = scaled @ rotation
    return weight.astype(np.float32), (-mean @ weight).astype(np.float32)


def bootstrap_head(
    text: Floats,
    shape: HeadShape,
    actions: tuple[str, ...],
    seed: int,
    shown: Halves | None = None,
) -> Head:
    """The hand-written head for a catalogue's text vectors, and what it shows beside them.

    Pictures begin with half the say of the text: a gate of noughts is one half.
    Shapes: text (N, T), shown (N, columns).
    """
    rng = np.random.default_rng(seed + 1)
    d = shape.dim
    arrays = {name: np.zeros(size, np.float32) for name, size in shape.arrays().items()}
    for name in ("item_gain", "norm_gain", "ff_gain", "final_gain", "new_item_gain"):
        arrays[name] += 1.0
    arrays["text_weight"], arrays["text_bias"] = principal_directions(text, d, seed)
    if shown is not None and shape.widths:
        arrays |= _picture_directions(shown, shape, seed)
    session = np.arange(d) % 2 == 1
    rate = np.where(session, SESSION_RATE, LONG_TERM_RATE)
    arrays["mix_bias"][:, :d] = np.log(rate / (1.0 - rate))
    # Features of a gap are 1 for no gap and fall with it: a falling second one (an hour) opens
    # the gate, and the constant gives back what a gap of zero takes.
    arrays["mix_gap"][:, 1, session] = -SESSION_HOUR_LOGIT
    arrays["mix_bias"][:, :d][:, session] += SESSION_HOUR_LOGIT
    arrays["mix_weight"][:, :, d:] = np.eye(d)
    arrays["out_weight"][0] = MEMORY_GAIN * np.eye(d)
    # Later blocks begin as identities: no output weight yet, but inputs that can learn.
    small = 1.0 / np.sqrt(d)
    arrays["ff_in"] = rng.normal(0.0, small, size=arrays["ff_in"].shape).astype(np.float32)
    arrays["score_scale"][:] = SCORE_SCALE
    arrays["id_gate"][:] = ID_GATE
    return Head.from_arrays(shape, actions, {n: a.astype(np.float32) for n, a in arrays.items()})


def _picture_directions(shown: Halves, shape: HeadShape, seed: int) -> dict[str, Floats]:
    """Each modality in principal directions of its own, over the items that have it."""
    weights, biases = [], []
    for m, place in enumerate(places(shape.widths)):
        having = shown[shown[:, place.present] > 0.5, place.vector].astype(np.float32)
        weight, bias = principal_directions(having, shape.dim, seed + 2 + m)
        weights.append(weight)
        biases.append(bias)
    return {"vector_weight": np.concatenate(weights), "vector_bias": np.stack(biases)}


def bootstrap_table(head: Head, catalogue: Catalogue, text: Floats) -> ItemTable:
    """The catalogue in the head's space, no event behind any item."""
    n, d = len(catalogue), head.shape.dim
    ids, counts = np.zeros((n, d), np.float32), np.zeros(n, np.float32)
    return ItemTable(
        keys=catalogue.keys,
        text_keys=catalogue.text_keys,
        vectors=embed_items(head, text, ids, counts, catalogue.shown),
        ids=ids,
        bias=np.zeros(n, np.float32),
        counts=counts,
    )


def head_shape(settings: Settings, text_dim: int) -> HeadShape:
    """The shape that these settings and this base model fix."""
    model = settings.model
    return HeadShape(
        model.dim,
        model.layers,
        model.hidden,
        text_dim,
        len(settings.actions),
        # Left out where there are none (`HeadShape`).
        Modalities.of(model.vectors).widths or msgspec.UNSET,
    )


def new_manifest(
    settings: Settings, shape: HeadShape, sequence: int, parent_id: str | None, created_at: float
) -> Manifest:
    """A manifest with everything that the settings say; hashes, name and figures come later."""
    named: Mapping[str, float] = settings.actions
    actions = ActionWeights.from_settings(named)
    return Manifest(
        format=FORMAT,
        sequence=sequence,
        parent_id=parent_id,
        created_at=created_at,
        base_model=settings.model.base,
        base_sha256=base_sha256(settings.model.base),
        pooling=settings.model.pooling,
        max_tokens=settings.model.max_tokens,
        lora_rank=settings.model.lora_rank,
        shape=shape,
        actions=list(actions.names),
        action_weights=[float(weight) for weight in actions.weights],
        files={},
        sizes={},
        probe_texts=list(PROBE_TEXTS),
        peft_method=settings.model.peft_method,
    )


def bootstrap_release(
    settings: Settings,
    items: Sequence[Item],
    store: ReleaseStore,
    *,
    sequence: int = 1,
    created_at: float | None = None,
) -> Manifest:
    """Make, sign (if a key is configured) and publish the first release; does not announce it.

    Raises: LearnerError for an empty catalogue, ModelError, ReleaseError.
    """
    return bootstrap_from(
        settings,
        make_catalogue(items, item_text(settings.data), Modalities.of(settings.model.vectors)),
        store,
        sequence=sequence,
        created_at=created_at,
    )


def bootstrap_from(
    settings: Settings,
    catalogue: Catalogue,
    store: ReleaseStore,
    *,
    sequence: int = 1,
    created_at: float | None = None,
    keep_text: Path | None = None,
) -> Manifest:
    """`bootstrap_release` for a catalogue that is already frozen; its text vectors are kept in
    the directory `keep_text` for the first round."""
    if not len(catalogue):
        raise LearnerError(
            "there is no first release without a catalogue: the items topic is empty; produce "
            "items first"
        )
    device = pick_device(settings.learner.device)
    language = LanguageModel.load(settings.model, None, device, settings.learner.seed)
    adapted = adapt_to(language, catalogue.texts, settings.learner)
    text = language.encode(catalogue.texts)
    names = ActionWeights.from_settings(settings.actions).names
    shape = head_shape(settings, text.shape[1])
    head = bootstrap_head(text, shape, names, settings.learner.seed, catalogue.shown)
    made_at = time.time() if created_at is None else created_at
    manifest = msgspec.structs.replace(
        new_manifest(settings, head.shape, sequence, None, made_at),
        metrics={UNKNOWN_TOKENS: language.encoder.unknown_share(catalogue.texts), **adapted},
    )
    finished = publish_release(
        settings, store, manifest, head, bootstrap_table(head, catalogue, text), language
    )
    if keep_text is not None:
        save_text(keep_text, finished.release_id, catalogue, text)
    return finished


def publish_release(
    settings: Settings,
    store: ReleaseStore,
    manifest: Manifest,
    head: Head,
    items: ItemTable,
    language: LanguageModel,
) -> Manifest:
    """Write, sign and move a release into the store; returns the finished manifest.

    Raises: ReleaseError; then nothing of it is left behind.
    """
    workspace = store.workspace()
    try:
        (workspace / "adapter").mkdir()
        language.save(workspace / "adapter")
        finished = write_release(workspace, manifest, head, items, language.probe())
        key, password = settings.security.signing_key, settings.security.signing_key_password
        if key is not None:
            secret = password.get_secret_value() if password is not None else None
            finished = sign(finished, key, secret)
            write_manifest(workspace, finished)
        store.publish(workspace)
    except (OSError, SafetensorError) as error:
        raise ReleaseError(
            f"a release cannot be written for {store.url!r}: {error}; is the disk full? Make room "
            "and start the learner again: it goes on from its last checkpoint"
        ) from error
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    return finished
