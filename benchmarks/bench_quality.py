"""How well we recommend, against peers: same split, same filter, same ranks, same budget.

Three protocols (`offline/protocols.py`), nine peers and ours (`offline/methods.py`), each searched
on the validation part within the same CPU seconds (`offline/search.py`) and then played on the
test, learned ones with several seeds.  Every method runs in a process of its own; peers live in
an environment of their own.

    make bench-quality [BENCH_ARGS="--smoke"]
    make bench-quality BENCH_ARGS="--data amazon --path Beauty --core 5 --protocols leave-one-out"

`--work FOLDER` keeps the answers, so that a run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from benchmarks import plots
from benchmarks.harness import load_average, report, say
from benchmarks.offline import comparison
from benchmarks.offline.exchange import save_task
from benchmarks.offline.histories import Floats
from benchmarks.offline.interactions import Interactions, load_interactions
from benchmarks.offline.jobs import Budget, Jobs, library_difference
from benchmarks.offline.methods import METHODS, PEER_MODULES
from benchmarks.offline.protocols import PROTOCOLS
from benchmarks.peer_environment import QUALITY
from learner.language import LanguageModel
from profiles.settings.learning import ModelSettings
from stream.datasets import FORMATS

SMOKE = {"users": 60, "search_cpu_s": 1.0, "fit_cpu_s": 3.0, "refit_cpu_s": 3.0, "seeds": 1}
ALLOWED_DIFFERENCE = 1e-6


def main() -> None:
    asked = _arguments()
    started_load = load_average()
    data = _data(asked)
    say(f"{data.name}: {len(data)} events, {len(data.user_ids)} users, {len(data.catalogue)} items")
    needs = {name: module for module, names in PEER_MODULES.items() for name in names}
    unavailable = QUALITY.prepare(needs)
    methods = [name for name in asked.methods if name not in unavailable]
    prefix = shlex.split(asked.prefix)
    with tempfile.TemporaryDirectory(prefix="driftline-quality-") as temporary:
        work = asked.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        text = _text(data, work)
        splits = {name: PROTOCOLS[name](data.users, data.items) for name in asked.protocols}
        tasks = {name: work / f"{name}.npz" for name in splits}
        for name, split in splits.items():
            save_task(tasks[name], data.task(split, text))
        difference = library_difference(tasks[asked.protocols[0]], prefix)
        if difference > ALLOWED_DIFFERENCE:
            raise SystemExit(f"our figures differ from ranx's by {difference}: nothing compared")
        budget = Budget(asked.search_cpu_s, asked.fit_cpu_s, asked.refit_cpu_s, asked.seeds)
        jobs = Jobs(work, budget, asked.jobs, prefix)
        played = jobs.run(tasks, methods)
    rows: list[comparison.Row] = []
    ratios: list[comparison.Ratio] = []
    for name, split in splits.items():
        more_rows, more_ratios = comparison.compare(data, split, played[name], asked.seed)
        rows += more_rows
        ratios += more_ratios
    _draw(asked.name, rows, ratios)
    bars = comparison.bars(rows, ratios, "" if asked.users or asked.core else data.name)
    print(comparison.table(rows, ratios))
    print(comparison.table_of_bars(bars))
    report(
        asked.name,
        asked.seed,
        vars(asked),
        started_load,
        data="synthetic" if data.synthetic else data.name,
        events=len(data),
        users=len(data.user_ids),
        items=len(data.catalogue),
        difference_from_ranx=difference,
        unavailable=unavailable,
        failed=jobs.failed,
        bars=bars,
        peers=QUALITY.installed(),
        **comparison.as_result(rows, ratios, played),
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", default="movielens", help=f"one of {', '.join(FORMATS)}")
    parser.add_argument("--path", type=Path, help="its file or folder")
    parser.add_argument("--map", default="", help="columns of a table: user_id=uid,item_id=sku")
    parser.add_argument(
        "--core", type=int, default=0, help="drop users and items with fewer events"
    )
    parser.add_argument("--users", type=int, default=0, help="draw so many users; 0 takes all")
    parser.add_argument("--protocols", type=_names(PROTOCOLS), default=list(PROTOCOLS))
    parser.add_argument("--methods", type=_names(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3, help="of methods that depend on one")
    parser.add_argument("--search-cpu-s", type=float, default=60.0, help="of each search")
    parser.add_argument("--fit-cpu-s", type=float, default=60.0, help="of each fit, at most")
    parser.add_argument(
        "--refit-cpu-s", type=float, default=20.0, help="the same for each block of prequential"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--prefix", default="", help="words before each job's command")
    parser.add_argument("--work", type=Path, help="keep answers here and go on from them")
    parser.add_argument("--seed", type=int, default=7, help="of the bootstrap and the users drawn")
    parser.add_argument("--smoke", action="store_true", help="a small, quick run of everything")
    parser.add_argument("--name", default="quality", help="of the result file")
    asked = parser.parse_args()
    if asked.smoke:
        for name, value in SMOKE.items():
            setattr(asked, name, value)
    return asked


def _names(known: Collection[str]) -> Callable[[str], list[str]]:
    """Parses names separated by commas."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        if odd := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {odd}; known are {', '.join(known)}")
        return names

    return parse


def _data(asked: argparse.Namespace) -> Interactions:
    mapping = dict(pair.split("=", 1) for pair in asked.map.split(",") if pair)
    data = load_interactions(asked.data, asked.path, mapping)
    if asked.core:
        data = data.core(asked.core)
    return data.some_users(asked.users, asked.seed) if asked.users else data


def _text(data: Interactions, work: Path) -> Floats:
    """The frozen encoder's vectors of all items, once for all methods."""
    named = hashlib.sha256("\0".join(data.texts()).encode()).hexdigest()[:16]
    kept = work / f"text-{named}.npy"
    if kept.exists():
        found: Floats = np.load(kept)
        return found
    say(f"reading {len(data.catalogue)} item texts")
    language = LanguageModel.load(ModelSettings(), None, "cpu", seed=0)
    vectors = language.encode(data.texts())
    np.save(kept, vectors)
    return vectors


def _draw(name: str, rows: list[comparison.Row], ratios: list[comparison.Ratio]) -> None:
    """NDCG@10 of every method by protocol, and ours over the best peer by slice."""
    protocols = list(dict.fromkeys(row.protocol for row in rows))
    with plots.figure(name, "NDCG@10, 95% by user", columns=len(protocols)) as axes:
        for one, protocol in zip(axes, protocols, strict=True):
            found = [row for row in rows if (row.protocol, row.slice) == (protocol, "all")]
            found.sort(key=lambda row: -row.figures.ndcg.mean)
            intervals = {row.method: row.figures.ndcg for row in found}
            plots.with_intervals(one, protocol, intervals, "NDCG@10")
    sides = {"best peer": [r for r in ratios if r.other != comparison.FROZEN]}
    if text := [r for r in ratios if r.other == comparison.FROZEN]:  # else it was not asked for
        sides["frozen text"] = text
    title = "ours over another, NDCG@10"
    with plots.figure(f"{name}_ratios", title, columns=len(sides)) as axes:
        for one, (other, against) in zip(axes, sides.items(), strict=True):
            named = {f"{ratio.protocol}, {ratio.slice}": ratio.ratio for ratio in against}
            plots.with_intervals(one, other, named, "ratio", line=1.0)


if __name__ == "__main__":
    main()
