"""Small made-up things for unit tests: a random model, a catalogue, records, a release on disk.

Everything is drawn from a seed, so that a failing test fails again.  Import it as
`tests.unit.builders`; the fixtures that use it are in conftest.py next to it.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from aiokafka.structs import ConsumerRecord
from prometheus_client import CollectorRegistry
from safetensors.numpy import save_file

from profiles.catalog import Catalog
from profiles.event_keys import event_keys
from profiles.events import Event
from profiles.head import Head, HeadShape
from profiles.items import Item
from profiles.judging import Batch
from profiles.layers import Floats
from profiles.manifest import FORMAT, Manifest
from profiles.metrics import WorkerMetrics
from profiles.release import Expected, ItemTable, Release, write_release
from profiles.said import text_key
from profiles.settings.serving import ServingSettings
from profiles.space import Space
from profiles.state import RecordLayout, Records, empty_records
from profiles.wire import encode, key64
from stream.chunks import Record
from stream.event_path import EventPath
from stream.words import Unread

T = TypeVar("T")

ACTIONS = ("click", "hide", "like")
DIM = 8
TEXT_DIM = 6
SHAPE = HeadShape(dim=DIM, layers=1, hidden=8, text_dim=TEXT_DIM, actions=len(ACTIONS))
LAYOUT = RecordLayout(dim=DIM, layers=1, history=6, recent_ids=4, seen_bytes=32)
PROBE_TEXTS = ["one", "two", "three"]
EXPECTED = Expected("b" * 64, DIM, 1, 2, ACTIONS, "mean", 16)
TOPIC_KEY = key64("topic-1")
NOW_S = 1_700_000_000.0
START_S = 1_600_000_000.0


def make_head(seed: int = 0, shape: HeadShape = SHAPE) -> Head:
    """A head of random arrays, of the size that training leaves."""
    random_state = np.random.default_rng(seed)
    arrays = {
        name: (random_state.normal(size=size) / np.sqrt(max(size[-1], 2))).astype(np.float32)
        for name, size in shape.arrays().items()
    }
    for name in ("item_gain", "norm_gain", "ff_gain", "final_gain"):
        arrays[name] = arrays[name] + np.float32(1.0)
    arrays["new_item_bias"] = np.array([-0.25], np.float32)
    arrays["new_item_gain"] = np.array([1.5], np.float32)
    arrays["score_scale"] = np.array([0.5], np.float32)
    arrays["id_gate"] = np.array([10.0], np.float32)
    return Head.from_arrays(shape, ACTIONS, arrays)


def make_items(count: int, tag_every: int = 2) -> list[Item]:
    """Items i0, i1, ...; even ones are tagged `tale`, the others `song`."""
    return [
        Item(f"i{n}", f"Title {n}", tags=["song" if n % tag_every else "tale"])
        for n in range(count)
    ]


def make_catalog(count: int = 20) -> Catalog:
    """A catalogue of `make_items`."""
    catalog = Catalog()
    for item in make_items(count):
        catalog.put(item)
    return catalog


def make_table(items: Sequence[Item], seed: int = 0, dim: int = DIM) -> ItemTable:
    """A release's item table for these items, with random vectors."""
    random_state = np.random.default_rng(seed + 1000)
    count = len(items)
    return ItemTable(
        keys=np.array([key64(item.item_id) for item in items], np.uint64),
        text_keys=np.array([key64(item.full_text()) for item in items], np.uint64),
        vectors=random_state.normal(size=(count, dim)).astype(np.float32),
        ids=random_state.normal(size=(count, dim)).astype(np.float32),
        bias=random_state.normal(size=count).astype(np.float32),
        counts=random_state.integers(0, 50, size=count).astype(np.float32),
    )


def make_manifest(seed: int = 0) -> Manifest:
    """A manifest of the tiny model, without files, name or signature."""
    return Manifest(
        format=FORMAT,
        sequence=seed + 1,
        parent_id=None,
        created_at=NOW_S,
        base_model="tiny",
        base_sha256=EXPECTED.base_sha256,
        pooling=EXPECTED.pooling,
        max_tokens=EXPECTED.max_tokens,
        lora_rank=EXPECTED.lora_rank,
        shape=SHAPE,
        actions=list(ACTIONS),
        action_weights=[0.5, -1.0, 1.0],
        files={},
        sizes={},
        probe_texts=list(PROBE_TEXTS),
    )


def make_release(items: Sequence[Item], seed: int = 0) -> Release:
    """A release that only lives in memory."""
    name = f"r{seed:05d}-{hashlib.sha256(str(seed).encode()).hexdigest()[:16]}"
    manifest = msgspec.structs.replace(make_manifest(seed), release_id=name)
    probe = np.eye(len(PROBE_TEXTS), TEXT_DIM, dtype=np.float32)
    return Release(manifest, Path("nowhere"), make_head(seed), make_table(items, seed), probe)


def make_space(catalog: Catalog, seed: int = 0, layout: RecordLayout = LAYOUT) -> Space:
    """A space in which every item of the catalogue has a vector."""
    return Space(make_release(catalog.items, seed), catalog, layout.seen_bytes)


def make_path(items: int = 30) -> EventPath:
    """An event path that serves, over a catalogue of its own, with metrics of its own."""
    catalog = make_catalog(items)
    serving = ServingSettings(k=5)
    metrics = WorkerMetrics(CollectorRegistry())
    actions = {name: at for at, name in enumerate(ACTIONS)}
    path = EventPath(LAYOUT, serving, actions, catalog, metrics)
    path.space = make_space(catalog)
    return path


def save_adapter(directory: Path, rank: int = 2, seed: int = 0) -> None:
    """An adapter folder as PEFT writes it, made by hand."""
    random_state = np.random.default_rng(seed)
    directory.mkdir(parents=True, exist_ok=True)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 4, "target_modules": ["query"]}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    save_file(
        {
            "query.lora_A.weight": random_state.normal(size=(rank, 6)).astype(np.float32),
            "query.lora_B.weight": random_state.normal(size=(6, rank)).astype(np.float32),
        },
        directory / "adapter_model.safetensors",
    )


def save_release(directory: Path, items: Sequence[Item], seed: int = 0) -> Manifest:
    """A whole release on disk, unsigned."""
    save_adapter(directory / "adapter", seed=seed)
    probe = np.eye(len(PROBE_TEXTS), TEXT_DIM, dtype=np.float32)
    return write_release(
        directory, make_manifest(seed), make_head(seed), make_table(items, seed), probe
    )


# --- events -------------------------------------------------------------------------------------


def make_event(user: str, number: int, item: str = "i0", **changes: object) -> Event:
    """Event `number` of a user; a minute after the one before."""
    fields: dict[str, object] = {
        "event_id": f"{user}-{number}",
        "user_id": user,
        "item_id": item,
        "action": "click",
        "ts": START_S + 60.0 * number,
        **changes,
    }
    return Event(**fields)  # type: ignore[arg-type]  # the test's own words


def make_record(
    offset: int,
    value: bytes | Event | None,
    key: bytes | str | None = None,
    topic: str = "events",
    partition: int = 0,
    timestamp_ms: int = int(NOW_S * 1000),
) -> Record:
    """A Kafka record; an event brings its own key."""
    if isinstance(value, Event):
        key = value.user_id if key is None else key
        value = encode(value)
    raw = key.encode() if isinstance(key, str) else key
    return ConsumerRecord(
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp=timestamp_ms,
        timestamp_type=0,
        key=raw,
        value=value,
        checksum=None,
        serialized_key_size=len(raw or b""),
        serialized_value_size=len(value or b""),
        headers=(),
    )


def make_batch(catalog: Catalog, events: Sequence[tuple[int, int, Event]]) -> Batch:
    """Columns of (row of the user, offset, event)."""
    rows = np.array([catalog.rows[event.item_id] for _, _, event in events], np.intp)
    return Batch(
        users=np.array([user for user, _, _ in events], np.intp),
        offsets=np.array([offset for _, offset, _ in events], np.int64),
        event_keys=event_keys([event.event_id for _, _, event in events]),
        item_rows=rows,
        item_keys=catalog.keys[rows] if len(events) else np.zeros(0, np.uint64),
        actions=np.array([ACTIONS.index(event.action) for _, _, event in events], np.int64),
        values=np.array([event.value or 0.0 for _, _, event in events], np.float32),
        ts=np.array([event.ts for _, _, event in events], np.float64),
        appended_ms=np.full(len(events), int(NOW_S * 1000), np.int64),
    )


def random_stream(
    seed: int, users: int, count: int, items: int, repeats: float = 0.2
) -> list[tuple[int, int, Event]]:
    """(user row, offset, event) of several users; some event ids come again shortly after.

    Times mostly rise, some stand still, some run back; some offsets of the log are missing.
    """
    chance = random.Random(seed)
    stream: list[tuple[int, int, Event]] = []
    now, offset = START_S, chance.randrange(5)
    numbers = [0] * users
    for _ in range(count):
        user = chance.choice([0, *range(users)])  # user 0 is busier than the others
        now += chance.choice([0.0, 1.0, 60.0, 7_000.0, 400_000.0, -30.0])
        number = numbers[user]
        if number and chance.random() < repeats:
            number -= chance.randint(1, min(number, 3))
        else:
            numbers[user] += 1
        event = Event(
            event_id=f"u{user}-{number}",
            user_id=f"u{user}",
            item_id=f"i{chance.randrange(items)}",
            action=chance.choice(ACTIONS),
            ts=now,
            value=chance.choice([None, -3.0, 4.5, 1e4]),
        )
        stream.append((user, offset, event))
        offset += chance.choice([1, 1, 1, 3])
    return stream


def word_vectors(texts: Sequence[str]) -> Floats:
    """What a language model would make of texts: unit rows that depend on nothing but the text."""
    rows = [unit_rows(1, TEXT_DIM, seed=text_key(text) % 2**32)[0] for text in texts]
    return np.array(rows, np.float32).reshape(len(texts), TEXT_DIM)


def at_once(found: T | Unread) -> T:
    """What an event path gave, where no words were to be read before."""
    assert not isinstance(found, Unread)
    return found


def read_words(wanted: Unread) -> list[tuple[Space, list[str], Floats]]:
    """As `stream.text_reader`, at once."""
    return [(space, texts, word_vectors(texts)) for space, texts in wanted.texts]


# --- records ------------------------------------------------------------------------------------


def random_records(layout: RecordLayout, users: int, seed: int = 0) -> Records:
    """Records full of random bytes that still carry the right version and layout."""
    random_state = np.random.default_rng(seed)
    payload = random_state.bytes(users * layout.dtype.itemsize)
    records = np.frombuffer(bytearray(payload), dtype=layout.dtype)
    blank = empty_records(layout, users)
    for name in ("version", "layout", "used_until_us"):
        records[name] = blank[name]
    return records


def unit_rows(count: int, width: int, seed: int = 0) -> Floats:
    """Rows of length one, as a text encoder gives them."""
    rows = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    unit: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
