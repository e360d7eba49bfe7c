"""A user of whom we know nothing but what she says she likes: is that better than what is popular?

Newcomers are the users without an event in the first 60% of the data, in time; the model is one
learning round on that part.  What a newcomer declares is *made from her own first five liked
items*, since no data set at hand has declarations: either their titles, or the three commonest of
their genres.  The next 20 events are then ranked by that text alone, no event applied, the whole
catalogue less the five.  So it says what a declaration is worth that fits the user's taste.

    make bench-cold-start [BENCH_ARGS="--seeds 1 --users 300"]

Methods: `popular` (events in the first 60%), `text_neighbours` (cosine of the frozen encoder),
`no_profile` (ours without the text), `declared` (ours with it, exactly as workers serve it).
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import plots
from benchmarks.harness import Result, load_average, report, say
from benchmarks.offline import ours
from benchmarks.offline.figures import Draws, figures, seed_mean
from benchmarks.offline.histories import Doubles, Floats, Ints, first_times
from benchmarks.offline.interactions import Interactions, load_interactions
from benchmarks.offline.protocols import BASE_SHARE, Split, Stage
from benchmarks.offline.ranking import ranks
from learner.language import LanguageModel
from learner.round_types import Candidate
from profiles.settings.learning import ModelSettings
from profiles.updater import interest_move, profile_at_start

DECLARED_ITEMS = 5
DECLARED_GENRES = 3
ASKED_EVENTS = 20
LIKED = 4.0
"""Stars from which an item is liked; events without a value count as liked."""


@dataclass(frozen=True, slots=True)
class Newcomers:
    """U users, what they declare, and their Q events asked about.

    `texts`: kind -> one text per user; `declared`: per user the items that the texts are made of;
    asked (Q,) rows of events, `of` (Q,) whose they are.
    """

    texts: dict[str, list[str]]
    declared: list[Ints]
    asked: Ints
    of: Ints

    def ranks(self, scores: Floats, items: Ints) -> Ints:
        """Rank of each asked event's item.  Shapes: scores (U, N) -> (Q,)."""
        return ranks(scores[self.of], items[self.asked], [self.declared[user] for user in self.of])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", default="movielens", help="a data set of `driftline replay`")
    parser.add_argument("--path", type=Path, help="its file or folder")
    parser.add_argument("--users", type=int, default=0, help="draw so many users; 0 takes all")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--seed", type=int, default=7, help="the first one")
    parser.add_argument("--lora-steps", type=int, default=0, help="of the language model")
    parser.add_argument("--name", default="cold_start", help="of the result file")
    asked = parser.parse_args()
    started_load = load_average()
    data = load_interactions(asked.data, asked.path)
    data = data.some_users(asked.users, asked.seed) if asked.users else data
    border = int(len(data) * BASE_SHARE)
    newcomers = find_newcomers(data, border)
    say(f"{len(newcomers.declared)} newcomers, {len(newcomers.asked)} events")
    frozen = LanguageModel.load(ModelSettings(), None, "cpu", seed=0)
    text = frozen.encode(data.texts())
    base = Stage(np.arange(border), newcomers.asked)
    task = data.task(Split("cold-start", base, (base,)), text)
    counts = np.bincount(data.items[:border], minlength=len(text)).astype(np.float32)
    scores = {"popular": np.tile(counts, (len(newcomers.declared), 1))}
    for kind, said in newcomers.texts.items():
        scores[f"text_neighbours, {kind}"] = frozen.encode(said) @ text.T
    found = {name: [newcomers.ranks(one, data.items)] for name, one in scores.items()}
    for seed in range(asked.seed, asked.seed + asked.seeds):
        say(f"learning, seed {seed}")
        settings = ours.product_settings(task, {"lora_steps": asked.lora_steps}, seed)
        candidate = ours.learn(task, base.fit, settings)
        for name, one in our_scores(candidate, newcomers).items():
            found.setdefault(name, []).append(newcomers.ranks(one, data.items))
    draws = Draws(data.users[newcomers.asked], asked.seed)
    everything = np.ones(len(newcomers.asked), np.bool_)
    told = {name: figures(by_seed, everything, draws) for name, by_seed in found.items()}
    with plots.figure(asked.name, f"{data.name}: newcomers before their first event") as (axes,):
        intervals = {name: one.ndcg for name, one in told.items()}
        plots.with_intervals(axes, "95% by user", intervals, "NDCG@10")
    report(
        asked.name,
        asked.seed,
        {name: value for name, value in vars(asked).items() if name != "path"},
        started_load,
        data="synthetic" if data.synthetic else data.name,
        declarations="simulated: made from each newcomer's own first liked items",
        newcomers=len(newcomers.declared),
        figures={name: dataclasses.asdict(one) for name, one in told.items()},
        ratios=_ratios({name: seed_mean(by_seed) for name, by_seed in found.items()}, draws),
    )


def find_newcomers(data: Interactions, border: int) -> Newcomers:
    """Users whose first event lies at or after `border`, with enough liked items and a next one."""
    new = first_times(data.users, data.items)
    known = np.zeros(len(data.user_ids), np.bool_)
    known[data.users[:border]] = True
    texts: dict[str, list[str]] = {"titles": [], "genres": []}
    declared: list[Ints] = []
    asked: list[Ints] = []
    for user in np.flatnonzero(~known):
        mine = np.flatnonzero(data.users == user)
        liked = mine[~(data.values[mine] < LIKED)][:DECLARED_ITEMS]
        if len(liked) < DECLARED_ITEMS:
            continue
        after = mine[(mine > liked[-1]) & new[mine]]
        after = after[~np.isin(data.items[after], data.items[liked])][:ASKED_EVENTS]
        if not len(after):
            continue
        items = [data.catalogue[item] for item in data.items[liked]]
        genres = Counter(tag for item in items for tag in item.tags)
        texts["titles"].append(". ".join(item.title for item in items))
        texts["genres"].append(", ".join(tag for tag, _ in genres.most_common(DECLARED_GENRES)))
        declared.append(data.items[liked])
        asked.append(after)
    sizes = [len(rows) for rows in asked]
    return Newcomers(
        texts,
        declared,
        np.concatenate([np.zeros(0, np.int64), *asked]),
        np.repeat(np.arange(len(asked)), sizes),
    )


def our_scores(candidate: Candidate, newcomers: Newcomers) -> dict[str, Floats]:
    """As `profiles.scoring` serves a profile without events.  Shapes: (U, N) each."""
    head, items = candidate.head, candidate.items
    start = profile_at_start(head, len(newcomers.declared))
    queries = {"no_profile": start}
    for kind, said in newcomers.texts.items():
        queries[f"declared, {kind}"] = start + interest_move(head, candidate.language.encode(said))
    return {
        name: query * head.score_scale[0] @ items.vectors.T + items.bias
        for name, query in queries.items()
    }


def _ratios(gains: dict[str, Doubles], draws: Draws) -> list[Result]:
    """Ours with a declaration over the same without, what is popular, and the text alone."""
    return [
        {"of": name, "over": other, **dataclasses.asdict(draws.ratio(gains[name], gains[other]))}
        for name in gains
        if name.startswith("declared")
        for other in ("no_profile", "popular", name.replace("declared", "text_neighbours"))
    ]


if __name__ == "__main__":
    main()
