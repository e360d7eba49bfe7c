"""Each of the learner's settings on its own against the default: what pays, on validation events.

    make bench-ablation                                   # MovieLens-100K, about 20 minutes
    make bench-ablation BENCH_ARGS="--smoke"              # a minute or two, proves nothing
    make bench-ablation BENCH_ARGS="--data amazon --path reviews.jsonl"

Every variant trains the same rounds with the same seeds on the same events.  The difference to its
base is taken event by event, gains averaged over the seeds, so that its standard error does not
hold the spread between events; spread over seeds is beside it.  Differences below two standard
errors are noise, and the language variants have few steps: read them as "works, costs so much".
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ablation.trial import Result, make_world, run_trial
from benchmarks.ablation.variants import VARIANTS, Variant
from benchmarks.harness import load_average, report, say
from benchmarks.offline.interactions import load_interactions
from benchmarks.plots import COLOURS, figure
from profiles.config import load_settings

FIRST_SEED = 11


def main() -> None:
    """See the module."""
    options = arguments()
    started = load_average()
    settings = load_settings(
        learner={
            "device": "cpu",
            "epochs": options.epochs,
            "lora_steps": options.language_steps,
            "batch_users": 32,
        }
    )
    data = load_interactions(options.data, options.path).some_users(options.users, FIRST_SEED)
    world = make_world(data, settings)
    say(
        f"{data.name}: {len(data)} events, {len(world.catalogue)} items, judged on the 70-80% slice"
    )
    wanted = [v for v in VARIANTS if not options.only or any(o in v.name for o in options.only)]
    needed = {variant.base for variant in wanted} | {variant.name for variant in wanted}
    chosen = [variant for variant in VARIANTS if variant.name in needed]
    results: dict[str, list[Result]] = {}
    for variant in chosen:
        results[variant.name] = [
            run_trial(world, settings, variant, FIRST_SEED + number)
            for number in range(options.seeds)
        ]
        say(f"{variant.name}: NDCG@10 {ndcg(results[variant.name]):.4f}")
    rows = [row_of(variant, results) for variant in chosen]
    print(table(rows))
    draw(options.name, rows, data.name)
    report(
        options.name,
        FIRST_SEED,
        vars(options),
        started,
        data="synthetic" if data.synthetic else data.name,
        events=len(data),
        users=len(data.user_ids),
        items=len(world.catalogue),
        judged_events=len(results[chosen[0].name][0].gains),
        rows=rows,
    )


def arguments() -> argparse.Namespace:
    """The command line; `--smoke` makes everything small."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", default="movielens", help="as `driftline replay` takes it")
    parser.add_argument("--path", type=Path, default=None)
    parser.add_argument("--users", type=int, default=300, help="drawn at random; all if fewer")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--language-steps", type=int, default=12)
    parser.add_argument("--only", nargs="*", default=[], help="parts of variants' names")
    parser.add_argument("--name", default="ablation")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    if options.smoke:
        options.users, options.seeds = 40, 1
        options.epochs, options.language_steps = 2, 2
    return options


def ndcg(results: Sequence[Result]) -> float:
    """Mean over seeds and events."""
    return float(np.mean([result.gains.mean() for result in results]))


# Any: rows go into JSON.
def row_of(variant: Variant, results: dict[str, list[Result]]) -> dict[str, Any]:
    """One line of the table."""
    own, base = results[variant.name], results[variant.base]
    mean = np.mean([result.gains for result in own], axis=0)
    change = mean - np.mean([result.gains for result in base], axis=0)
    by_seed = [float(a.gains.mean() - b.gains.mean()) for a, b in zip(own, base, strict=True)]
    first = own[0]

    def part(mask: Any) -> float | None:
        return round(float(mean[mask].mean()), 5) if mask.any() else None

    clicks = {
        name: round(float(np.mean([result.clicks[name] for result in own])), 5)
        for name in first.clicks
    }
    return {
        "variant": variant.name,
        "base": variant.base,
        "ndcg10": round(float(mean.mean()), 5),
        "hr10": round(float(np.mean([result.hits.mean() for result in own])), 5),
        "tail_ndcg10": part(first.is_tail),
        "cold_ndcg10": part(first.is_cold),
        "change": round(float(change.mean()), 5),
        "change_standard_error": round(float(change.std(ddof=1) / np.sqrt(len(change))), 5),
        "change_by_seed": [round(value, 5) for value in by_seed],
        "cpu_s": round(float(np.mean([result.seconds for result in own])), 2),
        "steps": round(float(np.mean([result.steps for result in own])), 1),
        "clicks": clicks,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """For people, as Markdown."""
    lines = [
        "| variant | NDCG@10 | change ± s.e. | HR@10 | tail | cold | CPU s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        is_base = row["variant"] == row["base"]
        change = "" if is_base else f"{row['change']:+.4f} ± {row['change_standard_error']:.4f}"
        parts = [f"{row[name]:.4f}" if row[name] is not None else "" for name in PARTS]
        lines.append(
            f"| {row['variant']} | {row['ndcg10']:.4f} | {change} | {' | '.join(parts)} "
            f"| {row['cpu_s']:.1f} |"
        )
        if row["clicks"]:
            said = ", ".join(f"{name[6:]} {value:.3f}" for name, value in row["clicks"].items())
            lines.append(f"| ... clicks: {said} | | | | | | |")
    return "\n".join(lines)


PARTS = ("hr10", "tail_ndcg10", "cold_ndcg10")


def draw(name: str, rows: Sequence[dict[str, Any]], data: str) -> None:
    """Change against the base with twice its standard error."""
    shown = [row for row in rows if row["variant"] != row["base"]]
    if not shown:
        return
    with figure(name, f"One setting against the default: NDCG@10 on validation, {data}") as (axes,):
        places = list(range(len(shown)))
        axes.barh(
            places,
            [row["change"] for row in shown],
            xerr=[2 * row["change_standard_error"] for row in shown],
            color=[COLOURS[2] if row["base"] == shown[0]["base"] else COLOURS[0] for row in shown],
            error_kw={"elinewidth": 1},
        )
        axes.set_yticks(places, [row["variant"] for row in shown], fontsize=7)
        axes.set_xlabel("change of NDCG@10, bars of two standard errors")
        axes.axvline(0.0, color="black", linewidth=1)
        axes.invert_yaxis()


if __name__ == "__main__":
    main()
