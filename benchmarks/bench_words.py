"""What do a user's words tell of what she does next, and what does it cost those who say nothing?

No data set at hand has words beside behaviour (none is carried by a registry package), so **the
searches are made up from the event that follows**: MovieLens, split in time; before a share of
the last tenth's events the user "searches" for two of the film's genres, for one word of its
title, or, as a control, for two genres of a film drawn at random.  That says that words which
mean something reach the ranking, and that ones which mean nothing do little harm; it does not say
how much real searches help.  The learner has never seen words, as in production
(docs/decisions/0035-words.md).

    make bench-words [BENCH_ARGS="--users 200 --seeds 1"]

The cost is that of a chunk without any words: time in what looks for them.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import time
from pathlib import Path

import numpy as np

from benchmarks.harness import Result, load_average, median_and_range, report, say
from benchmarks.offline import ours
from benchmarks.offline.figures import Draws, figures, seed_mean
from benchmarks.offline.histories import Bools, Ints
from benchmarks.offline.interactions import Interactions, load_interactions
from benchmarks.offline.protocols import Stage, global_time
from learner.language import LanguageModel
from learner.round_types import Candidate
from profiles.config import load_settings
from profiles.evaluation import UserSequence, prequential
from profiles.events import Event
from profiles.head import embed_items
from profiles.layers import Floats
from profiles.said import DEFAULT_MEMORY
from profiles.settings.learning import ModelSettings
from profiles.state import RecordLayout, empty_records
from profiles.updater import KNOWN_ITEM_EVENTS
from stream.codecs import Decoded, words_apart
from stream.words import unread

NEVER = np.float32(-1e9)
"""Bias of a text: it is read, and never recommended."""
CHUNK = 4_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", default="movielens", help="a data set of `driftline replay`")
    parser.add_argument("--path", type=Path, help="its file or folder")
    parser.add_argument("--users", type=int, default=0, help="draw so many users; 0 takes all")
    parser.add_argument("--share", type=float, default=0.3, help="of events that a search precedes")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--seed", type=int, default=7, help="the first one")
    parser.add_argument("--name", default="words", help="of the result file")
    asked = parser.parse_args()
    started_load = load_average()
    data = load_interactions(asked.data, asked.path)
    data = data.some_users(asked.users, asked.seed) if asked.users else data
    split = global_time(data.users, data.items)
    (stage,) = split.stages
    chosen = np.zeros(len(data), np.bool_)
    draw = np.random.default_rng(asked.seed)
    chosen[stage.asked] = draw.random(len(stage.asked)) < asked.share
    said = searches(data, np.flatnonzero(chosen), draw)
    frozen = LanguageModel.load(ModelSettings(), None, "cpu", seed=0)
    task = data.task(split, frozen.encode(data.texts()))
    # An action of its own, of which the release has learned nothing.
    task = dataclasses.replace(task, action_names=(*data.action_names, "search"))
    read = {kind: frozen.encode(texts) for kind, texts in said.items()}
    found: dict[str, list[Ints]] = {}
    for seed in range(asked.seed, asked.seed + asked.seeds):
        say(f"learning, seed {seed}")
        settings = ours.product_settings(task, {**ours.FIRST, "lora_steps": 0}, seed)
        candidate = ours.learn(task, stage.fit, settings)
        search = sorted(settings.actions).index("search")
        found.setdefault("none", []).append(rank(data, stage, candidate, None, chosen, search))
        for kind, vectors in read.items():
            ranks = rank(data, stage, candidate, vectors, chosen, search)
            found.setdefault(kind, []).append(ranks)
    after, elsewhere = chosen[stage.asked], ~chosen[stage.asked]
    told: dict[str, Result] = {}
    for name, members in (("right after the search", after), ("other events", elsewhere)):
        draws = Draws(data.users[stage.asked][members], asked.seed)
        means = {kind: seed_mean([one[members] for one in each]) for kind, each in found.items()}
        told[name] = {
            kind: {
                **dataclasses.asdict(figures(each, members, draws)),
                "over_none": dataclasses.asdict(draws.ratio(means[kind], means["none"])),
            }
            for kind, each in found.items()
        }
    report(
        asked.name,
        asked.seed,
        {name: value for name, value in vars(asked).items() if name != "path"},
        started_load,
        data="synthetic" if data.synthetic else data.name,
        searches="synthetic: made up from the event that follows",
        searched=int(chosen.sum()),
        figures=told,
        without_words_us_per_event=cost_without_words(),
    )


def searches(data: Interactions, rows: Ints, draw: np.random.Generator) -> dict[str, list[str]]:
    """A search before each of these events, of each kind."""
    strangers = draw.integers(0, len(data.catalogue), len(rows))
    found: dict[str, list[str]] = {"genres": [], "a title word": [], "genres of another": []}
    for row, stranger in zip(rows.tolist(), strangers.tolist(), strict=True):
        item = data.catalogue[data.items[row]]
        found["genres"].append(_genres(item.tags, draw))
        words = [word for word in re.findall(r"[^\W\d_]{4,}", item.title)] or [item.title]
        found["a title word"].append(words[draw.integers(len(words))].lower())
        found["genres of another"].append(_genres(data.catalogue[stranger].tags, draw))
    return found


def _genres(tags: list[str], draw: np.random.Generator) -> str:
    drawn = draw.permutation(tags)[:2].tolist() if tags else ["film"]
    return " ".join(drawn).lower()


def rank(
    data: Interactions,
    stage: Stage,
    candidate: Candidate,
    texts: Floats | None,
    chosen: Bools,
    search: int,
) -> Ints:
    """Ranks of the asked events, a search applied before each of `chosen` (none: no searches).

    Shapes: texts (searches, T) -> (Q,).
    """
    items, actions, values = data.items, data.actions, np.nan_to_num(data.values)
    vectors, bias = candidate.items.vectors, candidate.items.bias
    rows = np.arange(len(data))
    if texts is not None:
        count = np.full(len(texts), KNOWN_ITEM_EVENTS, np.float32)
        nothing = np.zeros((len(texts), vectors.shape[1]), np.float32)
        said = embed_items(candidate.head, texts, nothing, count)
        vectors = np.concatenate([vectors, said])
        bias = np.concatenate([bias, np.full(len(texts), NEVER)])
        # Each search stands right before its event, at the same time.
        place = np.flatnonzero(chosen)
        rows = np.insert(rows, place, -1 - np.arange(len(place)))
    spoken = rows < 0
    event = np.where(spoken, np.roll(rows, -1), rows)
    items = np.where(spoken, len(data.catalogue) - 1 - rows, items[event])
    actions = np.where(spoken, search, actions[event])
    values = np.where(spoken, 0.0, values[event]).astype(np.float32)
    users, ts = data.users[event], data.ts[event]
    wanted = np.zeros(len(rows), np.bool_)
    wanted[~spoken] = np.isin(np.arange(len(data)), stage.asked)
    order = np.argsort(users, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(users))[:-1])
    ranked = prequential(
        candidate.head,
        vectors,
        bias,
        [UserSequence(items[part], actions[part], values[part], ts[part]) for part in parts],
        [wanted[part] for part in parts],
    )
    found = np.zeros(len(data), np.int64)
    for part, ranks in zip(parts, ranked, strict=True):
        found[event[part][wanted[part]]] = ranks[wanted[part]]
    return found[stage.asked]


def cost_without_words() -> Result:
    """Microseconds per event that a chunk without words spends on looking for some."""
    events = [Event(f"e{n}", f"u{n % 1000}", "i1", "click", 1.0) for n in range(CHUNK)]
    users = [event.user_id.encode() for event in events]
    decoded = Decoded(events, [], users, [])
    tails, nobody = [b""] * 1000, empty_records(RecordLayout.of(load_settings()), 0)
    runs = []
    for _ in range(30):
        began = time.perf_counter()
        assert words_apart(decoded, DEFAULT_MEMORY) is decoded
        assert unread([], nobody, tails) is None
        runs.append(1e6 * (time.perf_counter() - began) / CHUNK)
    return median_and_range(runs)


if __name__ == "__main__":
    main()
