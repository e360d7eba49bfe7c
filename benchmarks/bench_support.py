"""Does the right answer come up, and does the product know when it does not?

Real questions with real answers: the FAQs of Perl, Python and Debian, as Debian packages carry
them (benchmarks/support/faqs.py), or a file of yours (`--path`, JSONL or CSV of question, answer,
accepted).  What is searched is an answer's text without its question.  A share of the answers is
taken away: their questions are ones to hand over.

Questions are split by lot, half to learn from, half to test on, so **no tested question's answer
was ever accepted before**: it is found by its text alone, as a new answer is.  Conversations to
learn from are *simulated* from the truth: a question is asked, the first release's first answer is
opened and accepted or rejected, and if it was wrong and there is a right one, that one is opened
and accepted.  All methods calibrate by the product's own fit on the same half; nothing is chosen
on the test half.

    make bench-support [BENCH_ARGS="--seeds 1 --lora-steps 0"]

Methods: `bm25` (bm25s), `frozen_encoder` (cosine), `first_release` (before any learning, its
confidence fitted on the same verdicts), `candidate` (after one round on the first four fifths of
the conversations), `served`: the candidate where the gate lets it pass, by the last fifth, else the
first release.  Before its first round the product itself has no confidence and hands everything
over.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import ROOT, Result, load_average, report, say
from benchmarks.peer_environment import PeerEnvironment
from benchmarks.support.faqs import load_faqs, unpack
from benchmarks.support.handing_over import figures, fit_on, tell
from benchmarks.support.questions import Asked, KnowledgeBase, load_questions
from learner.answers import examine_answers
from learner.bootstrap import bootstrap_head, bootstrap_table, head_shape
from learner.catalogue import Catalogue
from learner.confidence import said_and_done
from learner.conversations import Case, Step
from learner.evaluation import Model
from learner.gate import NOTHING, Decision, Evidence, decide
from learner.language import LanguageModel
from learner.round_types import Parent, RoundData
from learner.sampling import ActionWeights, Segment
from learner.trainer import train_round
from profiles.config import Settings, load_settings
from profiles.evaluation import profiles_before
from profiles.layers import Floats
from profiles.wire import key64

PEERS = PeerEnvironment(".venv-bench-support", "requirements-support-peers.txt")
PEER = ROOT / "benchmarks" / "support" / "bm25_peer.py"
START_S = 1_700_000_000.0
LEARNED = 0.8
"""Of the conversations; by the others the gate judges."""


@dataclass(frozen=True, slots=True)
class Split:
    """Questions to learn from and to test on; `places`: the answers that are there, by column."""

    learn: list[Asked]
    test: list[Asked]
    places: list[int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--path", type=Path, help="JSONL or CSV; default: FAQs of Debian packages")
    parser.add_argument("--root", type=Path, help="where those packages are unpacked")
    parser.add_argument("--missing", type=float, default=0.2, help="share of answers taken away")
    parser.add_argument("--threshold", type=float, default=0.5, help="serving.hand_over_below")
    parser.add_argument("--lora-steps", type=int, default=0, help="of the language model")
    parser.add_argument("--seeds", type=int, default=5, help="how many splits")
    parser.add_argument("--seed", type=int, default=7, help="the first one")
    parser.add_argument("--name", default="support", help="of the result file")
    asked = parser.parse_args()
    started_load = load_average()
    if asked.path is not None:
        base = load_questions(asked.path)
    else:
        base = load_faqs(asked.root or unpack(ROOT / ".driftline" / "faqs"))
    say(f"{len(base.answers)} answers, {len(base.questions)} questions")
    unavailable = PEERS.prepare({"bm25": "bm25s"})
    runs: dict[str, list[Result]] = {}
    decisions: list[Result] = []
    for seed in range(asked.seed, asked.seed + asked.seeds):
        say(f"split {seed}")
        split = split_by_lot(base, asked.missing, seed)
        settings = load_settings(
            domain="support", learner={"lora_steps": asked.lora_steps, "seed": seed}
        )
        methods, decision = our_scores(base, split, settings)
        decisions.append({"promoted": decision.promote, "reason": decision.reason})
        if not unavailable:
            methods["bm25"] = bm25(base, split)
        for name, (learnt, tested) in methods.items():
            sure = fit_on(learnt, split.learn, split.places)
            told = tell(tested, split.test, split.places, sure)
            runs.setdefault(name, []).append(figures(told, asked.threshold))
    report(
        asked.name,
        asked.seed,
        {name: value for name, value in vars(asked).items() if name not in ("path", "root")},
        started_load,
        data=base.source,
        conversations="simulated from the true answers",
        answers=len(base.answers),
        questions=len(base.questions),
        unavailable=unavailable,
        figures={name: _medians(each) for name, each in runs.items()},
        gate=decisions,
        runs=runs,
    )


def split_by_lot(base: KnowledgeBase, missing: float, seed: int) -> Split:
    """Half of the questions each way; a share of the answers is not there."""
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(base.questions))
    half = len(order) // 2
    there = draw.random(len(base.answers)) >= missing
    return Split(
        [base.questions[at] for at in order[:half]],
        [base.questions[at] for at in order[half:]],
        np.flatnonzero(there).tolist(),
    )


def our_scores(
    base: KnowledgeBase, split: Split, settings: Settings
) -> tuple[dict[str, tuple[Floats, Floats]], Decision]:
    """Scores of the questions to learn from and to test on, by method; and what the gate said."""
    frozen = LanguageModel.load(settings.model, None, "cpu", settings.learner.seed)
    texts = tuple(base.answers[place] for place in split.places)
    text = frozen.encode(texts)
    catalogue = Catalogue(
        np.arange(len(texts), dtype=np.uint64),
        texts,
        np.array([key64(each) for each in texts], np.uint64),
    )
    actions = ActionWeights.from_settings(settings.actions)
    head = bootstrap_head(
        text, head_shape(settings, text.shape[1]), actions.names, settings.learner.seed
    )
    table = bootstrap_table(head, catalogue, text)
    first = Model(head, table.vectors, table.bias)
    asked = (split.learn, split.test)
    found = {
        "frozen_encoder": _pair(
            frozen.encode([each.text for each in part]) @ text.T for part in asked
        ),
        "first_release": _pair(scores(first, frozen, part, catalogue, settings) for part in asked),
    }
    shown = found["first_release"][0].argmax(axis=1).tolist()
    segments = [
        conversation(at, each, column, split.places, actions)
        for at, (each, column) in enumerate(zip(split.learn, shown, strict=True))
    ]
    cut = int(LEARNED * len(segments))
    training = segments[:cut]
    counts = np.bincount(
        np.concatenate([segment.items for segment in training]).astype(np.int64),
        minlength=len(texts),
    )
    candidate = train_round(
        settings.model,
        settings.learner,
        actions,
        Parent(head, table, None, is_trained=False),
        RoundData(catalogue, training, [], [], counts.astype(np.float32), text.copy()),
    )
    learned = Model(candidate.head, candidate.items.vectors, candidate.items.bias)
    found["candidate"] = _pair(
        scores(learned, candidate.language, part, catalogue, settings) for part in asked
    )
    answers = examine_answers(
        (first, frozen),
        (learned, candidate.language),
        judged(split.learn, cut, split.places, settings),
        catalogue,
        exclude_seen=settings.serving.exclude_seen,
    )
    decision = decide(Evidence(answers, NOTHING, True, 1.0, answers), settings.learner)
    found["served"] = found["candidate" if decision.promote else "first_release"]
    return found, decision


def _pair(each: Iterable[Floats]) -> tuple[Floats, Floats]:
    learnt, tested = each
    return learnt, tested


def conversation(
    number: int, asked: Asked, shown: int, places: Sequence[int], actions: ActionWeights
) -> Segment:
    """What the learner's buffer holds of one simulated conversation: items, no words."""
    right = [column for column, place in enumerate(places) if place in asked.accepted]
    is_right = shown in right
    done = [(shown, "open"), (shown, "accept" if is_right else "reject")]
    if right and not is_right:
        done += [(right[0], "open"), (right[0], "accept")]
    size = len(done)
    return Segment(
        user=key64(f"conversation-{number}"),
        skipped=0,
        first_target=0,
        items=np.array([item for item, _ in done], np.uint64),
        ts=START_S + 60.0 * np.arange(size, dtype=np.float64) + 1e4 * number,
        actions=np.array([actions.names.index(name) for _, name in done], np.int64),
        values=np.zeros(size, np.float32),
        orders=10 * number + np.arange(size),
    )


def judged(
    asked: Sequence[Asked], first: int, places: Sequence[int], settings: Settings
) -> list[Case]:
    """The conversations from number `first` on, as the learner keeps them: words and verdicts."""
    found = []
    for number, each in enumerate(asked[first:], first):
        right = [column for column, place in enumerate(places) if place in each.accepted]
        if right:
            steps = (_ask(each, settings),)
            found.append(Case(key64(f"conversation-{number}"), steps, (right[0],), ()))
    return found


def _ask(asked: Asked, settings: Settings) -> Step:
    action = ActionWeights.from_settings(settings.actions).names.index("ask")
    return Step(asked.text[: settings.profile.text_chars], 0, action, 0.0, START_S)


def scores(
    model: Model,
    language: LanguageModel,
    asked: Sequence[Asked],
    catalogue: Catalogue,
    settings: Settings,
) -> Floats:
    """As a worker ranks right after somebody's first words.  Shapes: -> (Q, N)."""
    cases = [Case(at, (_ask(each, settings),), (), ()) for at, each in enumerate(asked)]
    vectors, said = said_and_done(model, language, cases, catalogue)
    before = profiles_before(model.head, vectors, said, [np.arange(2)] * len(said))
    found: Floats = before[:, 1] @ model.vectors.T * model.head.score_scale[0] + model.bias
    return found


def bm25(base: KnowledgeBase, split: Split) -> tuple[Floats, Floats]:
    """The peer's scores, from its own environment."""
    with tempfile.TemporaryDirectory(prefix="driftline-bm25-") as folder:
        texts = {
            "answers": [base.answers[place] for place in split.places],
            "questions": [each.text for each in (*split.learn, *split.test)],
        }
        (Path(folder) / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
        subprocess.run([PEERS.python, PEER, folder], check=True)
        found: Floats = np.load(Path(folder) / "scores.npy")
    return found[: len(split.learn)], found[len(split.learn) :]


def _medians(each: Sequence[Result]) -> Result:
    """Median over the splits of every figure that all of them have."""
    return {
        name: round(statistics.median([run[name] for run in each]), 4)
        for name in each[0]
        if all(run.get(name) is not None for run in each)
    }


if __name__ == "__main__":
    main()
