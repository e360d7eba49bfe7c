"""Real texts with human sentiment scores: what Hutto and Gilbert published with VADER.

Tweets, sentences of New York Times editorials, of product reviews and of film reviews, each with
the mean of twenty raters' scores from -4 to 4; MIT licence.  They come in the source distribution
of a Python package, are installed and read, and never copied into the repository.

Source: C. J. Hutto and E. Gilbert, VADER, ICWSM 2014.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import ROOT, say
from profiles.encoder import TextEncoder
from profiles.layers import Floats
from profiles.settings.learning import ModelSettings
from profiles.wire import key64
from stream.monitor.classes import SENTIMENTS, Rows

FOLDER = ROOT / "build" / "finance"
LIST = ROOT / "benchmarks" / "requirements-finance.txt"
INSIDE = "additional_resources/hutto_ICWSM_2014.tar.gz"
COLLECTIONS = {
    "tweets": "tweets",
    "editorials": "nytEditorialSnippets",
    "products": "amazonReviewSnippets",
    "films": "movieReviewSnippets",
}
NEUTRAL_WITHIN = 0.5
"""Scores between this and its negative count as neutral."""
PARTS = {"labels": 50, "tuning": 20, "test": 30}
"""Per cent of the groups (a review, an editorial, a tweet), which never part."""


@dataclass(frozen=True, slots=True)
class Part:
    """Texts of one part.  Shapes: vectors (N, T), sentiment (N,) and topic (N,) as places in
    `SENTIMENTS` and `COLLECTIONS`."""

    texts: tuple[str, ...]
    vectors: Floats
    sentiment: Rows
    topic: Rows

    def __len__(self) -> int:
        return len(self.texts)

    def first(self, count: int, seed: int) -> Part:
        """So many texts drawn by a seed."""
        rows = np.random.default_rng(seed).permutation(len(self))[:count]
        return Part(
            tuple(self.texts[row] for row in rows),
            self.vectors[rows],
            self.sentiment[rows],
            self.topic[rows],
        )


def load_parts(model: ModelSettings) -> tuple[dict[str, Part], TextEncoder]:
    """The three parts, read by the base model: what a first release makes of texts."""
    rows = list(_rows(_distribution()))
    encoder = TextEncoder.load(model)
    vectors = _vectors(encoder, [text for *_, text in rows])
    cuts = np.cumsum(list(PARTS.values()))
    part_of = np.array(
        [int(np.searchsorted(cuts, key64(group) % 100, side="right")) for group, *_ in rows]
    )
    parts: dict[str, Part] = {}
    for number, name in enumerate(PARTS):
        mine = np.flatnonzero(part_of == number)
        parts[name] = Part(
            tuple(rows[row][3] for row in mine),
            vectors[mine],
            np.array([rows[row][2] for row in mine], np.int64),
            np.array([rows[row][1] for row in mine], np.int64),
        )
    return parts, encoder


def _vectors(encoder: TextEncoder, texts: list[str]) -> Floats:
    """Kept for the next run: reading takes minutes.  `make clean` forgets them."""
    file = FOLDER / "vectors.npy"
    if not file.exists():
        say(f"reading {len(texts)} texts")
        np.save(file, encoder.encode(texts))
    kept: Floats = np.load(file)
    assert len(kept) == len(texts), f"remove {file}"
    return kept


def _distribution() -> Path:
    """The archive, fetched by pip once and checked by hash."""
    found = sorted(FOLDER.glob("vader*.tar.gz"))
    if not found:
        FOLDER.mkdir(parents=True, exist_ok=True)
        say(f"fetching what {LIST.name} names")
        pip = (ROOT / ".tools/bin/python", "-m", "pip", "download", "--quiet", "--no-deps")
        subprocess.run(
            [*pip, "--no-binary", ":all:", "--require-hashes", "-d", FOLDER, "-r", LIST], check=True
        )
        found = sorted(FOLDER.glob("vader*.tar.gz"))
    return found[0]


def _rows(archive: Path) -> Iterator[tuple[str, int, int, str]]:
    """(group, topic, sentiment, text) of every text, each text once."""
    with tarfile.open(archive) as outer:
        name = next(each for each in outer.getnames() if each.endswith(INSIDE))
        packed = outer.extractfile(name)
        assert packed is not None, f"{name} is a file"
        inside = packed.read()
    seen: set[str] = set()
    with tarfile.open(fileobj=io.BytesIO(inside)) as inner:
        for topic, (collection, stem) in enumerate(COLLECTIONS.items()):
            file = inner.extractfile(f"hutto_ICWSM_2014/{stem}_GroundTruth.txt")
            assert file is not None, stem
            for line in file.read().decode("utf-8", "replace").splitlines():
                identity, score, text = line.split("\t", 2)
                if text in seen or not text.strip():
                    continue
                seen.add(text)
                yield f"{collection}-{identity.split('_')[0]}", topic, _sentiment(score), text


def _sentiment(score: str) -> int:
    value = float(score)
    name = "neutral" if abs(value) <= NEUTRAL_WITHIN else "positive" if value > 0 else "negative"
    return SENTIMENTS.index(name)
