"""Whether a release tells who was among those it learned from: membership inference, by user.

Half of MovieLens-100K's users train a release, the attacker knows everybody's history and the
release itself, and asks of each user whether she is in it:

    threshold   members have the lower loss (Yeom et al. 2018)
    calibrated  lower than under releases trained without her on other halves, as in the offline
                attack of Carlini et al. 2022 (LiRA) with a difference for the likelihood ratio

AUC 0.5 is guessing; the bar is 0.60.  Losses are means over a user's events, so an attacker has all
that there is of her.  The true-positive rate at 1% false positives says what a mean hides.

    make bench-privacy [BENCH_ARGS="--epochs 4 --shadows 2"]
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.attacks.world import Doubles, auc, make_world
from benchmarks.harness import Result, load_average, report, say

BAR = 0.60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=12, help="of the round; the product's: 12")
    parser.add_argument("--shadows", type=int, default=3, help="releases to calibrate with")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--name", default="privacy", help="of the result file")
    asked = parser.parse_args()
    started_load = load_average()
    world = make_world(asked.seed, asked.epochs)
    rng = np.random.default_rng(asked.seed)
    count = len(world.users)
    losses: list[Doubles] = []
    members: list[np.ndarray[tuple[int], np.dtype[np.bool_]]] = []
    for number in range(1 + asked.shadows):
        chosen = np.zeros(count, np.bool_)
        chosen[rng.permutation(count)[: count // 2]] = True
        release = world.train([world.users[at] for at in np.flatnonzero(chosen).tolist()])
        members.append(chosen)
        losses.append(world.losses(release))
        say(f"release {number}: trained on {int(chosen.sum())} of {count} users")
    inside = members[0]
    # Of each user the releases that she is not in; nobody is in all of them for long.
    without = np.ma.masked_array(np.stack(losses[1:]), np.stack(members[1:]))
    usual = without.mean(axis=0).filled(np.nan)
    known = ~np.isnan(usual)
    attacks = {
        "threshold": _attack(-losses[0], inside),
        "calibrated": _attack((usual - losses[0])[known], inside[known]),
    }
    report(
        asked.name,
        asked.seed,
        vars(asked),
        started_load,
        data="movielens-100k",
        users=count,
        members=int(inside.sum()),
        mean_loss={
            "members": round(float(losses[0][inside].mean()), 4),
            "others": round(float(losses[0][~inside].mean()), 4),
        },
        attacks=attacks,
        bar=BAR,
        is_met=all(attack["auc"] <= BAR for attack in attacks.values()),
    )


def _attack(scores: Doubles, inside: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Result:
    mine, others = scores[inside], scores[~inside]
    found = auc(mine, others)
    # Hanley and McNeil's standard error at AUC 0.5: what chance alone would show.
    error = np.sqrt((len(mine) + len(others) + 1) / (12.0 * len(mine) * len(others)))
    strict = float(np.quantile(others, 0.99))
    return {
        "auc": round(found, 4),
        "standard_error": round(float(error), 4),
        "true_positives_at_1_percent": round(float((mine > strict).mean()), 4),
        "users": len(scores),
    }


if __name__ == "__main__":
    main()
