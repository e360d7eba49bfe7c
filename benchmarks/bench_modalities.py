"""What vectors beside the text are worth: with and without them, and with some of them missing.

    make bench-modalities                                   # MovieLens-100K, 15 minutes
    make bench-modalities BENCH_ARGS="--smoke"              # a minute, proves nothing

No set of pictures can be had where this is run, so the vectors are those that there are for
MovieLens-100K: each film's place in the knowledge graph that the package recbole carries with it
(actors, directors, subjects: `driftline items graph` makes the same).  Beside that two controls:
the title's own vector given as a *picture* to a model that cannot read the title (does the path of
vectors carry what the path of texts does?), and vectors of noise (does the gate do harm?).

Every arm trains the same round with the same seeds on the same events, head only, and is judged on
the 70-80% slice in time; the last 20% are never looked at.  Differences are taken event by event.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.ablation.trial import Result, World, make_world, run_trial
from benchmarks.ablation.variants import HEAD, Variant
from benchmarks.harness import load_average, report, say
from benchmarks.offline.interactions import Interactions, load_interactions
from learner.catalogue import make_catalogue
from profiles.config import Settings, load_settings
from profiles.items import Item
from profiles.modalities import Modalities
from stream.datasets.movielens import bundled_folder
from stream.side_vectors.graph import graph_vectors, read_graph

FIRST_SEED = 11
GRAPH_WIDTH = 64
BASE = "text"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--users", type=int, default=0, help="draw so many; 0 takes all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--name", default="modalities")
    parser.add_argument("--smoke", action="store_true")
    asked = parser.parse_args()
    if asked.smoke:
        asked.users, asked.seeds, asked.epochs, asked.name = 60, 1, 2, "modalities_smoke"
    started = load_average()
    data = load_interactions("movielens", None)
    data = data.some_users(asked.users, FIRST_SEED) if asked.users else data
    settings = load_settings(learner={"device": "cpu", "epochs": asked.epochs, "lora_steps": 0})
    world = make_world(data, settings)
    results: dict[str, list[Result]] = {}
    for name, (arm, vectors) in arms(world, data).items():
        own = with_vectors(settings, vectors)
        results[name] = [
            run_trial(arm, own, Variant(HEAD, HEAD), FIRST_SEED + n) for n in range(asked.seeds)
        ]
        say(f"{name}: {row_of(results, name)}")
    report(
        asked.name,
        FIRST_SEED,
        vars(asked),
        started,
        data=data.name,
        vectors="knowledge graph of the recbole wheel; title vectors; noise (synthetic)",
        judged_events=len(results[BASE][0].gains),
        rare_events=int(results[BASE][0].is_cold.sum()),
        arms={name: row_of(results, name) for name in results},
    )


def arms(world: World, data: Interactions) -> dict[str, tuple[World, Mapping[str, int]]]:
    """Name -> the world as that arm sees it, and the vectors that its settings name."""
    rng = np.random.default_rng(FIRST_SEED)
    folder = bundled_folder()
    graph = read_graph(folder / "ml-100k.kg", folder / "ml-100k.link")
    names = [item.item_id for item in data.catalogue]
    places = graph_vectors(graph, names, GRAPH_WIDTH, FIRST_SEED)
    halved = {name: place for name, place in places.items() if rng.random() < 0.5}
    noise = {name: rng.normal(size=GRAPH_WIDTH).tolist() for name in names}
    # The world's rows are ordered by key, the data's by first appearance.
    row = {text: at for at, text in enumerate(world.catalogue.texts)}
    titles = {i.item_id: world.text[row[i.full_text()]].tolist() for i in data.catalogue}
    width = world.text.shape[1]
    blind = replace(world, text=np.zeros_like(world.text))

    def seen(base: World, vectors: Mapping[str, list[float]], columns: int) -> Any:
        items = [
            Item(i.item_id, i.title, i.text, i.tags, vectors={"v": vectors[i.item_id]})
            if i.item_id in vectors
            else i
            for i in data.catalogue
        ]
        widths = {"v": columns}
        made = make_catalogue(items, modalities=Modalities.of(widths))
        assert np.array_equal(made.keys, base.catalogue.keys), "the same items in the same order"
        return replace(base, catalogue=made), widths

    return {
        BASE: (world, {}),
        "text and graph": seen(world, places, GRAPH_WIDTH),
        "text and graph, half of the items without": seen(world, halved, GRAPH_WIDTH),
        "text and noise": seen(world, noise, GRAPH_WIDTH),
        "neither": (blind, {}),
        "graph alone": seen(blind, places, GRAPH_WIDTH),
        "the title's vector as a picture": seen(blind, titles, width),
    }


def with_vectors(settings: Settings, vectors: Mapping[str, int]) -> Settings:
    """The same settings with `model.vectors`."""
    model = settings.model.model_copy(update={"vectors": dict(vectors)})
    return settings.model_copy(update={"model": model})


# Any: rows go into JSON.
def row_of(results: Mapping[str, list[Result]], name: str) -> dict[str, Any]:
    """NDCG@10 of all and of rare items, and the paired difference to text alone."""
    own, base = results[name], results[BASE]
    mean = np.mean([result.gains for result in own], axis=0)
    change = mean - np.mean([result.gains for result in base], axis=0)
    rare = own[0].is_cold
    return {
        "ndcg10": round(float(mean.mean()), 5),
        "rare_ndcg10": round(float(mean[rare].mean()), 5),
        "change": round(float(change.mean()), 5),
        "change_standard_error": round(float(change.std(ddof=1) / np.sqrt(len(change))), 5),
        "rare_change": round(float(change[rare].mean()), 5),
        "rare_change_standard_error": round(
            float(change[rare].std(ddof=1) / np.sqrt(max(int(rare.sum()), 1))), 5
        ),
        "change_by_seed": [
            round(float(a.gains.mean() - b.gains.mean()), 5) for a, b in zip(own, base, strict=True)
        ],
        "cpu_s": round(float(np.mean([result.seconds for result in own])), 1),
    }


if __name__ == "__main__":
    main()
