"""Pictures and a graph on a real broker: made vectors at the edge, and part of what items are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

from profiles.errors import SettingsError
from profiles.events import Event
from profiles.items import Item, decode_item
from profiles.wire import encode
from stream.broker import EmbeddedKafka
from stream.oracle import run_oracle
from stream.side_vectors import add_graph, add_pictures
from tests.deployment import Deployment, deploy, make_events, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

WIDTH = 12
USERS, EACH = 4, 5


@pytest.fixture
def vision_model(tmp_path: Path) -> Path:
    """A random vision transformer of one layer, loaded from a directory as real ones are."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=16, patch_size=8,
    )  # fmt: skip
    ViTModel(config).save_pretrained(tmp_path / "vision")
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "vision")
    return tmp_path / "vision"


@pytest.fixture
def seeing(
    kafka: EmbeddedKafka,
    topics: str,
    tiny_language_model: Path,
    vision_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Deployment]:
    """A deployment whose items may have pictures; none has one yet."""
    monkeypatch.setenv("DRIFTLINE_MODEL__VECTORS", f'{{"image": {WIDTH}, "graph": 2}}')
    monkeypatch.setenv("DRIFTLINE_DATA__PICTURE_ENCODER", str(vision_model))
    with deploy(kafka.bootstrap, topics, tiny_language_model, tmp_path) as made:
        yield made


def save_picture(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def test_pictures_reach_workers_as_vectors(seeing: Deployment, tmp_path: Path) -> None:
    worker = seeing.start_worker()
    worker.wait_ready()
    seeing.send_events(make_events(USERS, EACH))
    seeing.wait_committed(USERS * EACH)
    named = Item("newer/9", "song number 99")  # a file's name can have no slash
    seeing.send(seeing.topics.items, named.item_id, encode(named))
    photos = tmp_path / "photos"
    photos.mkdir()
    save_picture(photos / "item-3.png", 1)
    save_picture(photos / "newer%2F9.jpg", 2)
    save_picture(photos / "of-nobody.png", 3)
    (photos / "item-4.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (photos / "notes.txt").write_text("no picture")

    first = add_pictures(seeing.settings, photos)

    assert (first.sent, first.unchanged, first.without_item) == (2, 0, 1)
    assert list(first.unreadable) == ["item-4.png"]
    again = add_pictures(seeing.settings, photos)
    assert (again.sent, again.unchanged) == (0, 2)
    sent = {r.key: decode_item(r.value) for r in seeing.read(seeing.topics.items)}
    assert len(sent[b"item-3"].vectors["image"]) == WIDTH
    assert sent[b"item-3"].title == seeing.items[3].title

    graph = tmp_path / "graph.tsv"
    lines = [f"item-{n}\tby\tstudio-{n % 3}\nitem-{n}\tof\tyear-{n % 4}" for n in range(10, 22)]
    graph.write_text("\n".join(lines) + "\n")
    names = tmp_path / "names.tsv"
    names.write_text("studio-1\tOld Mill\n")
    placed = add_graph(seeing.settings, graph, names=names)
    assert (placed.sent, placed.without_vector) == (12, len(seeing.items) + 1 - 12)
    again = add_graph(seeing.settings, graph, names=names)
    assert (again.sent, again.unchanged) == (0, 12)
    told = {r.key: decode_item(r.value) for r in seeing.read(seeing.topics.items)}
    assert told[b"item-10"].attributes == {"graph": "by Old Mill"}
    assert told[b"item-11"].attributes == {}

    bad = Item("item-5", "tale number 5", vectors={"image": [1.0, 2.0]})
    seeing.send(seeing.topics.items, bad.item_id, encode(bad))
    wait_until("read", lambda: worker.metric("driftline_items_encoded_total") >= 14)
    seeing.send_events(
        [Event(f"n-{user}", f"user-{user}", "newer/9", "rate", 2e6, 5.0) for user in range(USERS)]
    )
    seeing.wait_committed(USERS * (EACH + 1))
    (letter,) = seeing.read(seeing.topics.dlq(seeing.topics.items))
    assert letter.value == encode(bad)
    assert dict(letter.headers)["__connect.errors.exception.class.name"] == b"bad-vector"
    with_picture = worker.metric('driftline_catalogue_vectors{modality="image"}')
    assert worker.stop() == 0
    assert with_picture == 2
    assert run_oracle(seeing.settings).faults() == []


def test_a_model_of_another_width_is_told_with_the_setting_that_fits(
    seeing: Deployment, tmp_path: Path
) -> None:
    model = seeing.settings.model.model_copy(update={"vectors": {"image": 5}})
    other = seeing.settings.model_copy(update={"model": model})
    with pytest.raises(SettingsError, match=rf"set model\.vectors\.image = {WIDTH}"):
        add_pictures(other, tmp_path)
