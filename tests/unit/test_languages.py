"""Another language is one setting: Chinese items, from their text to a ranking by Chinese words.

The model is a tiny random BERT that reads character by character, as Chinese ones do; synthetic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry
from transformers import BertConfig, BertModel, BertTokenizer

from learner import unknown_tokens
from learner.bootstrap import bootstrap_release
from learner.unknown_tokens import UNKNOWN_TOKENS, tell_unknown
from profiles.answers import Recommendation, Request
from profiles.catalog import Catalog
from profiles.config import Settings, load_settings
from profiles.encoder import TextEncoder
from profiles.expected import expected_by
from profiles.items import Item
from profiles.manifest import Manifest
from profiles.metrics import LearnerMetrics, WorkerMetrics
from profiles.registry import ReleaseStore
from profiles.release import open_release
from profiles.settings.learning import ModelSettings
from profiles.space import Space
from profiles.state import RecordLayout
from profiles.store import PartitionStore
from profiles.wire import decode_json
from stream.event_path import EventPath
from stream.messages import Cause
from stream.source import Source
from tests.unit.builders import NOW_S, at_once

pytestmark = pytest.mark.unit

KINDS = {
    "户外": (
        "露营徒步用品，防风防雨，适合登山露营",
        ["帐篷", "睡袋", "背包", "头灯", "炉具", "登山鞋"],
    ),
    "酒水": (
        "果香浓郁的葡萄酒，口感柔和，配牛排",
        ["赤霞珠", "黑皮诺", "梅洛", "起泡酒", "雷司令", "甜白"],
    ),
    "数码": ("无线蓝牙设备，长续航，音质好", ["耳机", "音箱", "键盘", "鼠标", "手环", "话筒"]),
}
ITEMS = [
    Item(f"{name}-{number}", name, text, [kind])
    for kind, (text, names) in KINDS.items()
    for number, name in enumerate(names)
]
WISHES = {
    "张三": ("周末登山露营，要防风防雨的徒步用品", "户外"),
    "李四": ("喜欢果香浓郁、口感柔和的葡萄酒", "酒水"),
    "王五": ("无线蓝牙，续航长，音质好的", "数码"),
}
SENTENCES = [item.full_text() for item in ITEMS] + [wish for wish, _ in WISHES.values()]


@pytest.fixture(scope="module")
def chinese_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as transformers writes one, whose tokenizer knows the characters above."""
    directory = tmp_path_factory.mktemp("tiny-chinese-bert")
    characters = sorted(set("".join(SENTENCES)) - {" "})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
    (directory / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=256, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64,
    )  # fmt: skip
    model = BertModel(config)  # type: ignore[no-untyped-call]  # transformers does not type it
    with torch.no_grad():  # what a character is shall weigh more than where it stands
        model.embeddings.word_embeddings.weight.normal_(0.0, 1.0)
    model.save_pretrained(directory)
    BertTokenizer(str(directory / "vocab.txt")).save_pretrained(directory)
    return directory


def settings_for(base: Path | str, root: Path) -> Settings:
    """Everything as it is delivered, but for the base model and sizes that suit a tiny one."""
    return load_settings(
        model={"base": str(base), "dim": 16, "hidden": 16, "lora_rank": 2},
        store={"directory": str(root), "releases": str(root / "releases")},
        learner={"device": "cpu"},
    )


@dataclass
class FakeLog:
    """Keeps warnings."""

    warnings: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    def warning(self, event: str, **facts: object) -> None:
        self.warnings.append((event, facts))


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> FakeLog:
    made = FakeLog()
    monkeypatch.setattr(unknown_tokens, "log", made)
    return made


def first_release(settings: Settings, root: Path) -> tuple[ReleaseStore, Manifest]:
    store = ReleaseStore(settings.store.releases, root / "cache")
    return store, bootstrap_release(settings, ITEMS, store)


def test_items_and_interests_in_chinese_go_from_text_to_a_ranking(
    chinese_model: Path, tmp_path: Path
) -> None:
    settings = settings_for(chinese_model, tmp_path)
    store, manifest = first_release(settings, tmp_path)
    release = open_release(store.fetch(manifest.release_id), expected_by(settings))
    assert manifest.metrics[UNKNOWN_TOKENS] == 0.0

    catalog = Catalog()
    for item in ITEMS:
        catalog.put(item)
    layout = RecordLayout.of(settings)
    actions = {name: at for at, name in enumerate(sorted(settings.actions))}
    path = EventPath(layout, settings.serving, actions, catalog, WorkerMetrics(CollectorRegistry()))
    path.space = Space(release, catalog, layout.seen_bytes)
    assert path.space.known.all(), "the release has read every item"
    state = PartitionStore(tmp_path / "partition")
    source = Source(0, state, "events", "events-id")
    encoder = TextEncoder.load(settings.model, release.adapter_directory)
    names = [name.encode() for name in WISHES]
    wishes = [wish for wish, _ in WISHES.values()]
    declared = list(zip(names, wishes, strict=True))
    path.upkeep.declare(source, declared, encoder.encode(wishes), path.space, NOW_S)

    for user, (_, wanted) in WISHES.items():
        cause = Cause("request", "r1", "requests-id", 0, 0)
        asked = Request("r1", user, k=3)
        (answer,) = at_once(path.answer(source, [(user.encode(), asked, cause)], NOW_S))
        told = decode_json(answer.value or b"", Recommendation)
        tags = [catalog.items[catalog.rows[item.item_id]].tags for item in told.items]
        assert tags == [[wanted]] * 3, told
        assert told.user_id == user
    state.close()


def test_the_bundled_model_does_not_know_most_chinese_characters() -> None:
    """The figure in docs/how-to/another-language.md, and why the page asks for another model."""
    encoder = TextEncoder.load(ModelSettings())
    sentences = [
        "户外徒步鞋 防水 轻便",
        "双人露营帐篷，三季通用，防风防雨",
        "智利赤霞珠干红葡萄酒 750毫升",
        "无线降噪蓝牙耳机 黑色 长续航",
        "儿童绘本：小熊和最好的爸爸",
        "如何重置我的登录密码？",
        "我想找一双适合雨天穿的跑步鞋",
        "季度利润低于预期，股价下跌百分之八",
    ]
    assert encoder.unknown_share(sentences) == pytest.approx(79 / 106)
    assert encoder.unknown_share(["Waterproof hiking shoes, light"]) == 0.0
    assert encoder.unknown_share([]) == 0.0
    same = encoder.encode(["降噪蓝机续航", "赤霞珠葡萄酒"])
    assert float(np.dot(same[0], same[1])) > 0.9999, "six unknown characters read like six others"


def test_a_catalogue_that_the_tokenizer_does_not_know_is_measured_and_warned_of(
    chinese_model: Path, tiny_language_model: Path, tmp_path: Path, log: FakeLog
) -> None:
    def share_told(base: Path) -> float:
        settings = settings_for(base, tmp_path / base.name)
        _, manifest = first_release(settings, tmp_path / base.name)
        metrics = LearnerMetrics(CollectorRegistry())
        tell_unknown(manifest, settings, metrics)
        told = metrics.registry.get_sample_value("driftline_catalogue_unknown_tokens_ratio")
        assert told == manifest.metrics[UNKNOWN_TOKENS]
        return manifest.metrics[UNKNOWN_TOKENS]

    assert share_told(chinese_model) == 0.0
    assert log.warnings == []
    assert share_told(tiny_language_model) > 0.5
    ((event, facts),) = log.warnings
    assert "model.base" in event
    assert facts["base"] == str(tiny_language_model)


def test_how_much_may_be_unknown_is_a_setting(
    tiny_language_model: Path, tmp_path: Path, log: FakeLog
) -> None:
    settings = settings_for(tiny_language_model, tmp_path)
    learner = settings.learner.model_copy(update={"unknown_tokens": 1.0})
    _, manifest = first_release(settings, tmp_path)
    metrics = LearnerMetrics(CollectorRegistry())
    tell_unknown(manifest, settings.model_copy(update={"learner": learner}), metrics)
    assert log.warnings == []
