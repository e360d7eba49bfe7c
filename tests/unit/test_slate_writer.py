"""Lists written by a loop: what is read back is what the structs of the contract would say."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.answers import Reason, ScoredItem
from profiles.catalog import Catalog
from profiles.exploration import Slates
from profiles.items import Item
from profiles.scoring import Ranked
from stream import item_pieces, slate_loops, slate_writer
from stream.item_pieces import ItemPieces
from stream.slate_loops import Otherwise
from stream.slate_writer import Said, SlateWriter

pytestmark = pytest.mark.unit

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TAGS = st.lists(st.sampled_from(["tale", 'a "quoted" one', "音楽", "back\\slash"]), max_size=3)
ITEMS = st.lists(st.tuples(TEXTS, TAGS), min_size=1, max_size=6)


def catalog_of(items: list[tuple[str, list[str]]]) -> Catalog:
    catalog = Catalog()
    for at, (title, tags) in enumerate(items):
        catalog.put(Item(f"i{at} \"'\n", title, tags=tags))
    return catalog


@dataclass
class Drawn:
    """Lists of a few users over a catalogue, drawn from a seed."""

    catalog: Catalog
    seed: int
    users: int = 3
    width: int = 4
    reasons: int = 2
    has_chances: bool = True
    explores: bool = False
    said: Said = field(init=False)
    slates: Slates | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        shape = self.users, self.width
        rows = rng.integers(-1, len(self.catalog), shape)
        scores = (rng.normal(size=shape) * 10.0 ** rng.integers(-7, 6, shape)).astype(np.float32)
        past = rng.integers(0, len(self.catalog), (*shape, self.reasons))
        shares = rng.choice([0.0, 4e-5, 5e-5, 0.00012, 0.25, 1.0], (*shape, self.reasons))
        chances = rng.random(shape if self.has_chances else (self.users, 0))
        self.said = Said(
            rows,
            scores,
            past,
            np.sort(shares, axis=2)[:, :, ::-1].astype(np.float32).copy(),
            rng.integers(0, len(Otherwise), shape),
            chances.astype(np.float32),
        )
        if self.explores:
            ranks = rng.integers(0, 3, shape)
            propensities = rng.choice([1.0, 1 / 3, 1e-9], shape)
            self.slates = Slates(Ranked(rows, scores), propensities, ranks)

    def written(self, writer: SlateWriter | None = None) -> list[list[ScoredItem]]:
        made = (writer or SlateWriter(self.catalog)).write(self.said, self.slates)
        return [msgspec.json.decode(one, type=list[ScoredItem]) for one in made]

    def expected(self) -> list[list[ScoredItem]]:
        return [
            [
                self._item(user, place)
                for place in np.flatnonzero(self.said.rows[user] >= 0).tolist()
            ]
            for user in range(self.users)
        ]

    def _item(self, user: int, place: int) -> ScoredItem:
        said, items = self.said, self.catalog.items
        item = items[said.rows[user, place]]
        reasons: list[Reason] = []
        for row, share in zip(said.past[user, place], said.shares[user, place], strict=True):
            past, told = items[row], round(float(share), 4)
            if told > 0 and past.item_id not in [reason.item_id for reason in reasons]:
                tag = next((tag for tag in item.tags if tag in past.tags), None)
                reasons.append(Reason("history", told, past.item_id, past.title, tag))
        kind = Otherwise(said.otherwise[user, place]).name.lower()
        slates = self.slates
        return ScoredItem(
            item.item_id,
            round(float(said.scores[user, place]), 5),
            item.title,
            reasons or [Reason(kind, 1.0)],
            1.0 if slates is None else float(slates.propensities[user, place]),
            round(float(said.chances[user, place]), 4) if self.has_chances else None,
            0 if slates is None else int(slates.ranks[user, place]),
        )


@given(ITEMS, st.integers(0, 2**32), st.booleans(), st.booleans(), st.integers(0, 3))
def test_a_list_reads_back_as_what_it_says(
    items: list[tuple[str, list[str]]], seed: int, has_chances: bool, explores: bool, reasons: int
) -> None:
    drawn = Drawn(
        catalog_of(items), seed, reasons=reasons, has_chances=has_chances, explores=explores
    )
    assert drawn.written() == drawn.expected()


def test_a_list_longer_than_the_buffer_is_written_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slate_writer, "LEAST_BUFFER", 64)
    drawn = Drawn(catalog_of([("a long title " * 2_000, ["tale"])] * 3), 1)
    assert drawn.written() == drawn.expected()


@pytest.mark.parametrize("users", [0, 2])
def test_nobody_and_nothing(users: int) -> None:
    drawn = Drawn(catalog_of([("", [])]), 1, users=users, width=0)
    assert drawn.written() == [[]] * users


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0"),
        (-1e-9, "0.0"),
        (1.0, "1.0"),
        (0.1, "0.1"),
        (-12.345678, "-12.34568"),
        (99.999996, "100.0"),
        (0.00001, "0.00001"),
        (1e300, "9000000000000.0"),
        (-np.inf, "-9000000000000.0"),
    ],
)
def test_numbers_are_written_as_json(value: float, text: str) -> None:
    out = np.zeros(40, np.uint8)
    end = slate_loops._put_number(out, 3, value, 5)
    assert out[3:end].tobytes().decode() == text


def test_a_changed_item_is_written_anew_and_the_others_are_not() -> None:
    catalog = catalog_of([("before", ["tale"]), ("other", [])])
    drawn, writer = Drawn(catalog, 3), SlateWriter(catalog)
    assert drawn.written(writer) == drawn.expected()
    places = writer._pieces.places.copy()
    catalog.put(msgspec.structs.replace(catalog.items[0], title="after", tags=["song", "tale"]))
    assert drawn.written(writer) == drawn.expected()
    assert (writer._pieces.places[1] == places[1]).all()
    assert (writer._pieces.places[0] != places[0]).any()


def test_what_is_outdated_does_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_pieces, "LEAST_REWRITTEN", 20)
    monkeypatch.setattr(item_pieces, "LEAST_BYTES", 1_000)
    catalog = catalog_of([("other", ["song"])] * 2)
    drawn, writer = Drawn(catalog, 4), SlateWriter(catalog)
    for turn in range(300):
        tags = ["song", f"tag of turn {turn}"]
        catalog.put(msgspec.structs.replace(catalog.items[0], title=f"title {turn}", tags=tags))
        assert drawn.written(writer) == drawn.expected()
    pieces = writer._pieces
    assert max(len(pieces.text), len(pieces.tag_numbers), len(pieces._number_of)) < 8_000
    assert len(pieces._number_of) < 40


def test_a_catalogue_may_grow_between_two_lists() -> None:
    catalog = catalog_of([("one", [])])
    writer = SlateWriter(catalog)
    assert Drawn(catalog, 1).written(writer) == Drawn(catalog, 1).expected()
    for at in range(3_000):
        catalog.put(Item(f"more {at}", f"title {at}", tags=[f"tag {at % 100}"]))
    grown = Drawn(catalog, 2, users=200)
    assert grown.written(writer) == grown.expected()


def test_only_what_is_named_is_written() -> None:
    catalog = catalog_of([("one", []), ("two", []), ("three", [])])
    pieces = ItemPieces(catalog)
    pieces.bring(np.array([2, 2]))
    said = pieces.text[: pieces.places[2, slate_loops.PIECE_END]].tobytes()
    assert b"three" in said
    assert b"one" not in said


def test_the_loop_knows_every_field_of_the_contract() -> None:
    """A field more has to be written by `stream.slate_writer`, and drawn above."""
    fields = "item_id score title reasons propensity probability rank"
    assert ScoredItem.__struct_fields__ == tuple(fields.split())
    assert Reason.__struct_fields__ == ("kind", "weight", "item_id", "title", "tag")
