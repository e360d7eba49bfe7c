"""What items show beside their text: from the message to an item's place in the space."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.bootstrap import bootstrap_release
from learner.catalogue import make_catalogue
from learner.language import LanguageModel
from learner.model import from_head
from profiles.catalog import Catalog
from profiles.config import load_settings
from profiles.errors import BadMessage, ReleaseRefused
from profiles.expected import expected_by
from profiles.head import HeadShape, embed_items
from profiles.items import Item, decode_item
from profiles.layers import Floats
from profiles.manifest import Manifest
from profiles.modalities import Modalities, content_key
from profiles.release import Release, open_release
from profiles.space import Space
from profiles.wire import encode, key64
from stream.oracle.catalogue import read_catalogue
from stream.oracle.models import lay_over
from stream.oracle.records import Raw
from tests.unit.builders import (
    DIM,
    LAYOUT,
    SHAPE,
    TEXT_DIM,
    make_head,
    make_items,
    make_manifest,
    make_release,
    make_table,
    unit_rows,
)
from tests.unit.learning_world import USERS, World, learn, make_world

pytestmark = pytest.mark.unit

WIDTHS = {"image": 3, "sound": 2}
MODALITIES = Modalities.of(WIDTHS)
SEEING = replace(SHAPE, modalities=MODALITIES.widths)


def pictured(number: int, **vectors: list[float]) -> Item:
    return Item(f"i{number}", f"Title {number}", vectors=vectors)


def shown_rows(seed: int, count: int) -> np.ndarray[tuple[int, int], np.dtype[np.float16]]:
    rng = np.random.default_rng(seed)
    items = []
    for number in range(count):
        some = {name: rng.normal(size=width).tolist() for name, width in WIDTHS.items()}
        items.append(pictured(number, **{n: v for n, v in some.items() if rng.random() < 0.7}))
    return np.stack([MODALITIES.read(item) for item in items])


# --- messages -----------------------------------------------------------------------------------


def test_a_vector_of_another_length_is_refused_and_the_item_stays_as_it_was() -> None:
    catalog = Catalog(modalities=MODALITIES)
    catalog.put(pictured(0, image=[1.0, 0.0, 0.0]))
    before, key = catalog.items[0], catalog.text_keys[0]
    with pytest.raises(BadMessage, match=r"vectors\.image of item 'i0' has 2 numbers.* says 3"):
        catalog.put(Item("i0", "another", vectors={"image": [1.0, 0.0]}))
    assert (catalog.items[0], catalog.text_keys[0]) == (before, key)


@pytest.mark.parametrize("vectors", [{}, {"image": [0.0] * 3}, {"smell": [1.0]}])
def test_nothing_to_see_leaves_an_item_with_the_name_of_its_text(
    vectors: dict[str, list[float]],
) -> None:
    row = MODALITIES.read(Item("i1", "Heat", vectors=vectors))
    assert not row.any()
    assert content_key("Heat", row) == key64("Heat")


def test_length_does_not_matter_and_vectors_are_kept_once() -> None:
    catalog = Catalog(modalities=MODALITIES)
    catalog.put(pictured(0, image=[3e20, 0.0, 4e20]))
    assert catalog.shown[0].astype(float).round(3).tolist() == [1.0, 0.6, 0.0, 0.8, 0.0, 0.0, 0.0]
    assert catalog.items[0].vectors == {}
    assert catalog.having == {"image": 1, "sound": 0}
    catalog.put(pictured(1, image=[1.0, 0.0, 0.0], sound=[1.0, 1.0]))
    assert catalog.having == {"image": 2, "sound": 1}
    catalog.put(pictured(0, sound=[1.0, 1.0]))
    assert catalog.having == {"image": 1, "sound": 2}


def test_worker_learner_and_oracle_call_the_same_content_by_the_same_name() -> None:
    rng = np.random.default_rng(5)
    items = [pictured(n, image=rng.normal(size=3).tolist()) for n in range(40)] + make_items(50)[
        40:
    ]
    catalog = Catalog(modalities=MODALITIES)
    for item in items:
        catalog.put(item)
    learned = make_catalogue(items, modalities=MODALITIES)
    records = [Raw(0, at, at, i.item_id.encode(), encode(i)) for at, i in enumerate(items)]
    judged = read_catalogue(records, widths=WIDTHS)
    assert np.array_equal(catalog.text_keys, judged.text_keys)
    assert np.array_equal(catalog.shown, judged.shown)
    assert learned.shown is not None
    places = learned.rows(catalog.keys)
    assert np.array_equal(catalog.text_keys, learned.text_keys[places])
    assert np.array_equal(catalog.shown, learned.shown[places])


@pytest.mark.parametrize(
    "vectors",
    ["5", "[1]", '{"image": [1]}', '{"image": 1}', '{"image": ["1", "2", "3"]}',
     '{"image": [true, 1, 1]}', '{"image": [1, null, 1]}', '{"smell": [1e40]}'],
)  # fmt: skip
def test_the_oracle_passes_over_what_is_a_dead_letter(vectors: str) -> None:
    payload = f'{{"item_id": "i0", "vectors": {vectors}}}'.encode()
    with pytest.raises(BadMessage):
        MODALITIES.read(decode_item(payload))
    assert read_catalogue([Raw(0, 0, 0, b"i0", payload)], widths=WIDTHS).ids == ()


# --- arithmetic ---------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 9))
def test_numpy_and_torch_join_pictures_alike(seed: int, count: int) -> None:
    head, shown = make_head(seed % 1000, SEEING), shown_rows(seed, count)
    rng = np.random.default_rng(seed)
    text = rng.normal(size=(count, TEXT_DIM)).astype(np.float32)
    ids = rng.normal(size=(count, DIM)).astype(np.float32)
    counts = rng.integers(0, 20, size=count).astype(np.float32)

    vectors = embed_items(head, text, ids, counts, shown)

    twin = from_head(head, count, ids=ids, counts=counts, shown=shown).eval()
    with torch.no_grad():
        twins: Floats = twin.served_vectors(torch.from_numpy(text)).numpy()
    assert np.abs(twins - vectors).max() < 1e-4
    unseen = ~shown.any(axis=1)
    alone = embed_items(head, text, ids, counts)
    assert np.array_equal(vectors[unseen], alone[unseen])
    assert np.abs(vectors[~unseen] - alone[~unseen]).max(initial=1.0) > 1e-3


def test_a_head_with_pictures_survives_the_way_to_torch_and_back() -> None:
    head = make_head(4, SEEING)
    back = from_head(head, 7).to_head()
    for name, array in head.arrays().items():
        assert np.array_equal(back.arrays()[name], array), name


# --- releases and spaces ------------------------------------------------------------------------


def seeing_release(items: list[Item]) -> Release:
    release = make_release(items)
    return replace(release, head=make_head(0, SEEING))


def test_a_shape_without_pictures_is_written_as_before_there_were_any() -> None:
    written = msgspec.json.decode(make_manifest().signed_bytes())["shape"]
    assert set(written) == {"dim", "layers", "hidden", "text_dim", "actions"}
    seeing = msgspec.structs.replace(make_manifest(), shape=SEEING)
    assert msgspec.json.decode(seeing.signed_bytes(), type=Manifest).shape == SEEING


def test_a_new_picture_moves_an_item_and_what_was_learned_of_it_stays() -> None:
    catalog = Catalog(modalities=MODALITIES)
    items = make_items(4)
    for item in items:
        catalog.put(item)
    release = seeing_release(items)
    space = Space(release, catalog, LAYOUT.seen_bytes)
    assert not len(space.missing())

    changed = msgspec.structs.replace(items[1], vectors={"image": [0.0, 1.0, 0.0]})
    catalog.put(changed)
    assert space.extend().tolist() == [1]
    text = unit_rows(1, TEXT_DIM)
    space.set_text_vectors(np.array([1]), text, catalog.text_keys[1:2].copy())

    table = make_table(items)
    expected = embed_items(
        release.head, text, table.ids[1:2], table.counts[1:2], MODALITIES.read(changed)[None]
    )
    np.testing.assert_array_equal(space.vectors[1:2], expected)
    assert not np.allclose(expected, embed_items(
        release.head, text, table.ids[1:2], table.counts[1:2]
    ))  # fmt: skip


def test_a_worker_and_the_oracle_place_a_new_pictured_item_alike() -> None:
    items = make_items(3)
    release = seeing_release(items)
    items.append(pictured(9, image=[1.0, 2.0, 3.0], sound=[0.5, -1.0]))
    catalog = Catalog(modalities=MODALITIES)
    for item in items:
        catalog.put(item)
    space = Space(release, catalog, LAYOUT.seen_bytes)
    text = unit_rows(1, TEXT_DIM)
    space.set_text_vectors(space.missing(), text, catalog.text_keys[3:].copy())
    records = [Raw(0, at, at, i.item_id.encode(), encode(i)) for at, i in enumerate(items)]

    model = lay_over(release, read_catalogue(records, widths=WIDTHS), lambda *_: text)

    np.testing.assert_allclose(model.vectors, space.vectors, atol=1e-6)
    assert model.known.all()


# --- learning -----------------------------------------------------------------------------------


def pictured_world(tmp_path: Path, language_model: Path) -> World:
    """The world of `learning_world` with one title for all: only pictures tell the kinds apart."""
    world = make_world(tmp_path, language_model)
    rng = np.random.default_rng(11)
    world.items = [kind_item(item.item_id, int(item.item_id[5]), rng) for item in world.items]
    model = world.settings.model.model_copy(update={"vectors": {"image": 6}})
    world.settings = world.settings.model_copy(update={"model": model})
    world.catalogue = make_catalogue(world.items, modalities=Modalities.of(model.vectors))
    return world


def kind_item(name: str, kind: int, rng: np.random.Generator) -> Item:
    centre = np.eye(6)[kind] + 0.2 * rng.normal(size=6)
    return Item(name, title="a number", vectors={"image": centre.tolist()})


def test_a_new_item_is_placed_by_its_picture_once_a_round_has_learned_to_look(
    tmp_path: Path, tiny_language_model: Path
) -> None:
    world = pictured_world(tmp_path, tiny_language_model)
    first = world.first_release()
    assert dict(first.manifest.shape.widths) == {"image": 6}
    buffer = world.buffer()
    buffer.ingest("events", world.rows(0, 20), {0: 20 * USERS})
    outcome = learn(world, buffer, first)
    trained = world.open(outcome.manifest.release_id)
    buffer.close()

    rng = np.random.default_rng(12)
    fresh = make_catalogue(
        [kind_item(f"new-{kind}-{n}", kind, rng) for kind in (0, 1) for n in range(10)],
        modalities=Modalities.of({"image": 6}),
    )
    assert fresh.shown is not None
    nothing = np.zeros((20, 16), np.float32)
    language = LanguageModel.load(world.settings.model, trained.adapter_directory, "cpu", 1)
    text = language.encode(["a number"] * 20)
    new = embed_items(trained.head, text, nothing, np.zeros(20, np.float32), fresh.shown)
    kinds = np.isin(fresh.keys, [key64(f"new-1-{n}") for n in range(10)]).astype(int)
    known = trained.items.vectors
    theirs = np.isin(trained.items.keys, [world.item_of(1, n) for n in range(20)]).astype(int)
    centres = np.stack([known[theirs == kind].mean(axis=0) for kind in (0, 1)])
    nearer = new @ (centres[1] - centres[0]) > (centres.mean(0) @ (centres[1] - centres[0]))
    assert (nearer == kinds.astype(bool)).mean() >= 0.9


def test_settings_with_other_vectors_refuse_a_release(
    tmp_path: Path, tiny_language_model: Path
) -> None:
    world = pictured_world(tmp_path, tiny_language_model)
    made = bootstrap_release(world.settings, world.items, world.store)
    blind = load_settings(model={"base": str(tiny_language_model), "dim": 16, "lora_rank": 2})
    with pytest.raises(ReleaseRefused, match=r"has vectors \{'image': 6\}, these settings want"):
        open_release(world.store.fetch(made.release_id), expected_by(blind))
    assert isinstance(HeadShape(1, 1, 1, 1, 1).widths, tuple)
