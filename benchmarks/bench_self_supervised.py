"""What comes of letting the language model learn the catalogue's texts before any event.

    make bench-self_supervised [BENCH_ARGS="--seeds 1 --steps 50"]

No event is learned from, so this is cold start at its coldest: `learner.catalogue_steps` against
none of them, on two real sets of texts.

films    MovieLens-100K's titles and genres.  Newcomers declare five films that they liked
         (simulated from what they did, as in bench_cold_start), and their next 20 events are
         ranked by the first release: NDCG@10.
answers  the FAQs of Perl, Python and Debian (as in bench_support): recall@5 of a question's own
         answer among all, by cosine.

What is learned is the films' texts, or the answers'; no question is seen.  Nothing is chosen by
these figures: steps are listed, the default is none.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.bench_cold_start import Newcomers, find_newcomers
from benchmarks.harness import ROOT, Result, load_average, report, say
from benchmarks.offline.histories import Doubles, Floats
from benchmarks.offline.interactions import Interactions, load_interactions
from benchmarks.offline.protocols import BASE_SHARE
from benchmarks.support.faqs import load_faqs, unpack
from benchmarks.support.questions import KnowledgeBase
from learner.bootstrap import bootstrap_head, head_shape
from learner.language import LanguageModel
from learner.self_supervised import adapt_to
from profiles.config import Settings, load_settings
from profiles.evaluation import gains
from profiles.head import embed_items
from profiles.updater import interest_move, profile_at_start

FIRST_SEED = 7
RECALL_AT = 5


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, nargs="*", default=[50, 200])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--root", type=Path, help="where the FAQs' packages are unpacked")
    parser.add_argument("--name", default="self_supervised")
    asked = parser.parse_args()
    started = load_average()
    films = load_interactions("movielens", None)
    newcomers = find_newcomers(films, int(len(films) * BASE_SHARE))
    base = load_faqs(asked.root or unpack(ROOT / ".driftline" / "faqs"))
    rows: list[Result] = []
    bases: dict[str, Doubles] = {}
    for name, texts in (("films", films.texts()), ("answers", tuple(base.answers))):
        for steps in (0, *asked.steps):
            # Without steps every seed reads alike.
            seeds = range(FIRST_SEED, FIRST_SEED + (asked.seeds if steps else 1))
            scored, losses = [], []
            for seed in seeds:
                settings = load_settings(
                    learner={"catalogue_steps": steps, "seed": seed, "device": "cpu"}
                )
                language = LanguageModel.load(settings.model, None, "cpu", seed)
                losses.append(adapt_to(language, texts, settings.learner))
                scored.append(
                    film_gains(language, settings, films, newcomers)
                    if name == "films"
                    else answer_hits(language, base)
                )
            rows.append(row_of(name, steps, scored, losses, bases))
            say(str(rows[-1]))
    report(
        asked.name,
        FIRST_SEED,
        {"steps": asked.steps, "seeds": asked.seeds},
        started,
        data=f"{films.name} and {base.source}",
        declarations="simulated: made from each newcomer's own first liked items",
        newcomers=len(newcomers.declared),
        questions=len(base.questions),
        rows=rows,
    )


def film_gains(
    language: LanguageModel, settings: Settings, films: Interactions, newcomers: Newcomers
) -> Doubles:
    """Gain (Q,) of each newcomer's event by the first release and her declaration."""
    text = language.encode(films.texts())
    shape = head_shape(settings, text.shape[1])
    actions = tuple(sorted(settings.actions))
    head = bootstrap_head(text, shape, actions, settings.learner.seed)
    nothing = np.zeros((len(text), shape.dim), np.float32)
    vectors = embed_items(head, text, nothing, np.zeros(len(text), np.float32))
    said = language.encode(newcomers.texts["titles"])
    query = profile_at_start(head, len(said)) + interest_move(head, said)
    scores: Floats = (query @ vectors.T).astype(np.float64)
    return gains(newcomers.ranks(scores, films.items))


def answer_hits(language: LanguageModel, base: KnowledgeBase) -> Doubles:
    """Whether (Q,) an accepted answer of each question is among the first five, a tie counting
    against it."""
    answers = language.encode(base.answers)
    questions = language.encode([each.text for each in base.questions])
    scores = questions @ answers.T
    target = np.array(
        [row[list(each.accepted)].max() for row, each in zip(scores, base.questions, strict=True)]
    )
    rank = (~(scores < target[:, None])).sum(axis=1)
    hits: Doubles = (rank <= RECALL_AT).astype(np.float64)
    return hits


def row_of(
    name: str,
    steps: int,
    scored: Sequence[Doubles],
    losses: Sequence[dict[str, float]],
    bases: dict[str, Doubles],
) -> Result:
    """Mean over seeds, and the paired difference to no steps with its standard error."""
    mean = np.mean(scored, axis=0)
    base = bases.setdefault(name, mean)
    change = mean - base
    return {
        "texts": name,
        "steps": steps,
        "figure": "ndcg10" if name == "films" else f"recall{RECALL_AT}",
        "value": round(float(mean.mean()), 5),
        "by_seed": [round(float(each.mean()), 5) for each in scored],
        "change": round(float(change.mean()), 5),
        "change_standard_error": round(float(change.std(ddof=1) / np.sqrt(len(change))), 5),
        "loss": [[round(value, 4) for value in each.values()] for each in losses],
    }


if __name__ == "__main__":
    main()
