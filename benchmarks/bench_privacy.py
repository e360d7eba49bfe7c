"""Whether a release tells who was among those it learned from: membership inference.

MovieLens-100K's users are split at random into halves of the same period.  A round of the product
(early stopping on held-out events, defaults but for `--set`, a frozen language model) learns from
one half, another from the other half, so that every user is a member once and a non-member once.
The attacker knows a user's whole history:

    files    has the release itself, so the loss of every event
    top ten  sees recommendations alone, by replaying the history on an account of his own

and either takes a threshold on the user's mean (Yeom et al. 2018) or calibrates it by shadow
releases that he trained without her on other halves: the offline attack of Carlini et al. 2022
(LiRA) with a difference for the likelihood ratio.  AUC 0.5 is guessing; the bar is 0.60, for a
user from the files.  `one_event` asks the same of single events.  `ndcg10` is what the release is
worth to users that it did not learn from.

    make bench-privacy [BENCH_ARGS="--shadow-pairs 1 --set epochs=4 --set dropout=0.4"]
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.attacks.membership import (
    Members,
    Signals,
    by_user,
    calibrated,
    judged,
    signals,
)
from benchmarks.attacks.world import Doubles, make_world, parse_changed
from benchmarks.harness import Result, load_average, report, say
from learner.private_steps import epsilon
from learner.round_types import Candidate

BAR = 0.60
DELTA = 1e-5
"""At which epsilon is told, of a private round."""
EVENTS = 10_000
"""Single events judged on each side, at most: 100,000 would give the same to three digits."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--shadow-pairs", type=int, default=1, help="each user is out of one each")
    parser.add_argument("--seed", type=int, default=7, help="of halves and training")
    parser.add_argument("--set", action="append", default=[], help="a learner setting, NAME=VALUE")
    parser.add_argument("--name", default="privacy", help="of the result file")
    asked = parser.parse_args()
    started_load = load_average()
    changed = parse_changed(asked.set)
    world = make_world(asked.seed)
    rng = np.random.default_rng(asked.seed)
    count, halves = len(world.users), 1 + asked.shadow_pairs
    members: list[Members] = []
    for _ in range(halves):
        chosen = np.zeros(count, np.bool_)
        chosen[rng.permutation(count)[: count // 2]] = True
        members += [chosen, ~chosen]
    seen: list[Signals] = []
    trained: list[Result] = []
    for inside in members:
        made = world.train([world.users[at] for at in np.flatnonzero(inside).tolist()], changed)
        seen.append(signals(world, made.release, made.border))
        trained.append(_training(made.release, seen[-1], inside))
        say(f"release {len(seen)} of {len(members)}: {trained[-1]}")
    attacks = {
        "files": _attacks([[-each for each in one.loss] for one in seen], members, rng),
        "top_ten": _attacks([one.gain for one in seen], members, rng),
    }
    report(
        asked.name,
        asked.seed,
        vars(asked),
        started_load,
        data="movielens-100k",
        users=count,
        split="random halves of the users, all of one period",
        trained=trained,
        ndcg10=round(float(np.mean([each["ndcg10_others"] for each in trained[:2]])), 4),
        attacks=attacks,
        bar=BAR,
        is_met=all(found["auc"] <= BAR for found in attacks["files"]["user"].values()),
    )


def _training(release: Candidate, seen: Signals, inside: Members) -> Result:
    loss, gain = by_user(seen.loss), by_user(seen.gain)
    noisy = release.private_steps
    return {
        "steps": release.steps,
        "epsilon": round(epsilon(noisy, DELTA), 2) if noisy else None,
        "loss_members": round(float(np.nanmean(loss[inside])), 4),
        "loss_others": round(float(np.nanmean(loss[~inside])), 4),
        "ndcg10_members": round(float(np.nanmean(gain[inside])), 4),
        "ndcg10_others": round(float(np.nanmean(gain[~inside])), 4),
    }


def _attacks(seen: list[list[Doubles]], members: list[Members], rng: np.random.Generator) -> Result:
    """Releases 0 and 1 are attacked, the later ones calibrate.  Signals: more is membership."""
    plain = seen[:2]
    against = [calibrated(target, seen[2:], members[2:]) for target in plain]
    both = np.concatenate(members[:2])
    found: Result = {"user": {}, "one_event": {}}
    for name, values in (("threshold", plain), ("calibrated", against)):
        found["user"][name] = judged(np.concatenate([by_user(each) for each in values]), both, rng)
        events = np.concatenate([event for each in values for event in each])
        sizes = [len(event) for each in values for event in each]
        inside = np.repeat(both, sizes)
        drawn = np.concatenate(
            [rng.permutation(np.flatnonzero(side))[:EVENTS] for side in (inside, ~inside)]
        )
        found["one_event"][name] = judged(events[drawn], inside[drawn], rng)
    return found


if __name__ == "__main__":
    main()
