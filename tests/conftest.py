"""What tests share: a real broker for the whole session, and topics of its own for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.broker import EmbeddedKafka
from tests.deployment import Deployment, create_readable_topics, deploy
from tests.faults.record import Record

LONG_REPEATS = 20


@pytest.fixture(scope="session")
def kafka() -> Iterator[EmbeddedKafka]:
    """An Apache Kafka that all tests share: to stop or kill one, start your own."""
    with EmbeddedKafka() as broker:
        yield broker


@pytest.fixture
def prefix() -> str:
    """A topic prefix that no other test has."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def topics(kafka: EmbeddedKafka, prefix: str) -> str:
    """The prefix under which every topic of the contract now exists, with four partitions."""
    create_readable_topics(kafka.bootstrap, prefix)
    return prefix


@pytest.fixture(scope="session")
def tiny_language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of one layer that transformers loads from a directory, in milliseconds."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    directory = tmp_path_factory.mktemp("tiny-bert")
    characters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list("0123456789.,")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "tale", "song", "number"]
    vocabulary = words + characters + [f"##{character}" for character in characters]
    (directory / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(directory)  # type: ignore[no-untyped-call]  # transformers does not type it
    BertTokenizer(vocab=str(directory / "vocab.txt")).save_pretrained(directory)
    return directory


@pytest.fixture
def deployment(
    kafka: EmbeddedKafka, topics: str, tiny_language_model: Path, tmp_path: Path
) -> Iterator[Deployment]:
    """Topics, catalogue and a serving first release; workers are started by the test."""
    with deploy(kafka.bootstrap, topics, tiny_language_model, tmp_path) as made:
        yield made


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--long`: repeat every fault as often as the long lane does."""
    parser.addoption("--long", action="store_true", help="the long lane of the fault tests")


@pytest.fixture
def repeats(request: pytest.FixtureRequest) -> int:
    """How often a fault is repeated: once with the whole suite, `LONG_REPEATS` in the long lane."""
    return LONG_REPEATS if request.config.getoption("--long") else 1


@pytest.fixture(scope="session")
def record(request: pytest.FixtureRequest) -> Record:
    """What the long lane found; noted by tests, written with `--long` alone."""
    return Record(bool(request.config.getoption("--long")))
