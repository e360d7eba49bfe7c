"""Sentiment before and after labels, and how soon a surge of negative posts is found.

Texts and their sentiment are real (`benchmarks.finance.texts`), times, entities and surges are
**synthetic** (`benchmarks.finance.streams`).  Texts are cut by group into a part whose labels
people give, a part to tune on, and a part that is only told of.

    make bench-finance [BENCH_ARGS="--days 28 --streams 6"]

Regularisation and the three thresholds of an alert are chosen on the tuning part: of the thresholds
those that find most surges with at most `--allowed` false alarms a day over all entities.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping

import numpy as np

from benchmarks.finance.streams import NEGATIVE, Outcome, Stream, make_stream, watch
from benchmarks.finance.texts import COLLECTIONS, PARTS, Part, load_parts
from benchmarks.harness import Result, load_average, report, say
from profiles.encoder import TextEncoder
from profiles.settings.learning import ModelSettings
from profiles.settings.monitor import MonitorSettings
from stream.monitor.classes import (
    SEEDS,
    SENTIMENTS,
    STRENGTH,
    ClassHead,
    Doubles,
    Examples,
    Rows,
    judge,
    train_head,
)
from stream.monitor.desk import LABELLED

RELEASE = "base"
LABELS = (50, 100, 200, 500, 1000, 2000)
TUNED_ON = 2000
"""Labels, for the choice of regularisation."""
STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
SLACK = (0.1, 0.25)
CHANGE_AT = (2.0, 4.0)
RAISE_AT = (2.5, 3.0, 3.5, 4.0)
THRESHOLDS = ("slack", "change_at", "raise_at")
Thresholds = tuple[float, float, float]
TIMES = (3.0, 5.0, 10.0)
TUNING_SEED = 1_000
WARM_UP_DAYS = 7.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--days", type=float, default=14.0, help="of a stream, warm-up included")
    parser.add_argument("--streams", type=int, default=2, help="of each kind, to tell of")
    parser.add_argument("--tuning-streams", type=int, default=1, help="others, to choose on")
    parser.add_argument("--entities", type=int, default=20)
    parser.add_argument(
        "--per-hour", type=float, default=6.0, help="posts of an entity, on average"
    )
    parser.add_argument("--allowed", type=float, default=0.2, help="false alarms a day, at most")
    parser.add_argument("--name", default="finance", help="of the result file")
    asked = parser.parse_args()
    started_load = load_average()
    parts, encoder = load_parts(ModelSettings())
    seeds = _seeds(encoder)
    say("heads")
    some = parts["labels"].first(TUNED_ON, seed=0)
    strengths = {
        str(strength): _told(_sentiment(some, seeds, strength), parts["tuning"])
        for strength in STRENGTHS
    }
    heads = {
        "seeds": _sentiment(parts["labels"].first(0, 0), seeds),
        "labels": _sentiment(parts["labels"].first(LABELLED, 0), seeds),
    }
    say("thresholds")
    tuned = _tuned(asked, parts["tuning"], heads["labels"])
    chosen = _chosen(tuned, asked.allowed)
    settings = _settings(chosen)
    report(
        asked.name, 0, vars(asked), started_load,
        data="texts: vaderSentiment 3.3.2 (MIT); times, entities and surges: synthetic",
        texts={name: _described(part) for name, part in parts.items()}, parts_per_cent=PARTS,
        strengths=strengths, product_strength=STRENGTH,
        sentiment=_curve(parts, seeds, heads["labels"]), topic=_topics(parts),
        allowed_per_day=asked.allowed,
        tuning={"/".join(f"{each:g}" for each in three): found for three, found in tuned.items()},
        chosen=dict(zip(THRESHOLDS, chosen, strict=True)),
        product={name: getattr(MonitorSettings(), name) for name in THRESHOLDS},
        surges=_surges(asked, parts["test"], heads, settings),
    )  # fmt: skip


def _seeds(encoder: TextEncoder) -> Examples:
    read = encoder.encode([text for _, text in SEEDS])
    return Examples.of(RELEASE, SENTIMENTS, SEEDS, read)


def _sentiment(part: Part, seeds: Examples, strength: float = STRENGTH) -> ClassHead:
    labelled = Examples(RELEASE, SENTIMENTS, part.texts, part.vectors, part.sentiment)
    return train_head(labelled, seeds, strength)


def _told(head: ClassHead, part: Part, targets: Rows | None = None) -> Result:
    """On texts that the head has not seen, beside what it said of itself."""
    wanted = part.sentiment if targets is None else targets
    found = judge(head.probabilities(part.vectors, RELEASE), wanted)
    own = head.quality
    return {
        "macro_f1": round(found.macro_f1, 4),
        "loss": round(found.loss, 4),
        "calibration_error": round(found.calibration_error, 4),
        "temperature": round(head.temperature, 3),
        "own_macro_f1": None if own is None else round(own.macro_f1, 4),
        "own_calibration_error": None if own is None else round(own.calibration_error, 4),
    }


def _curve(parts: Mapping[str, Part], seeds: Examples, full: ClassHead) -> Result:
    """By number of labels, on the test part; a constant answer for comparison."""
    test = parts["test"]
    commonest = np.bincount(test.sentiment).argmax()
    constant = np.eye(len(SENTIMENTS))[np.full(len(test), commonest)]
    found: Result = {"constant_macro_f1": round(judge(constant, test.sentiment).macro_f1, 4)}
    for count in (0, *LABELS):
        some = parts["labels"].first(count, seed=0)
        found[str(len(some))] = _told(_sentiment(some, seeds), test)
    found[str(LABELLED)] = _told(full, test)
    found["uncalibrated"] = _told(_uncalibrated(full), test)
    return found


def _uncalibrated(head: ClassHead) -> ClassHead:
    return ClassHead(head.release_id, head.names, head.weight, head.bias)


def _topics(parts: Mapping[str, Part]) -> Result:
    """The same for the collection that a text is from."""
    names, test = tuple(COLLECTIONS), parts["test"]
    nothing = Examples.of(RELEASE, names, [], parts["labels"].vectors[:0])
    found: Result = {}
    for count in (*LABELS, LABELLED):
        some = parts["labels"].first(count, seed=0)
        labelled = Examples(RELEASE, names, some.texts, some.vectors, some.topic)
        found[str(len(some))] = _told(train_head(labelled, nothing), test, test.topic)
    return found


def _streams(
    asked: argparse.Namespace, part: Part, seed: int, count: int, times: float
) -> list[Stream]:
    return [
        make_stream(
            part, seed + number, days=asked.days, entities=asked.entities, per_hour=asked.per_hour,
            times=times, warm_up_days=WARM_UP_DAYS,
        )
        for number in range(count)
    ]  # fmt: skip


def _tuned(asked: argparse.Namespace, part: Part, head: ClassHead) -> dict[Thresholds, Result]:
    """Recall, delay and false alarms of all thresholds, on the tuning part."""
    negative = _negative(head, part)
    quiet = _streams(asked, part, TUNING_SEED, asked.tuning_streams, 1.0)
    loud = _streams(asked, part, 2 * TUNING_SEED, asked.tuning_streams, TIMES[1])
    found: dict[Thresholds, Result] = {}
    for three in itertools.product(SLACK, CHANGE_AT, RAISE_AT):
        found[three] = {
            "quiet": _figures(asked, quiet, part, negative, _settings(three)),
            "surges": _figures(asked, loud, part, negative, _settings(three)),
        }
        say(f"{three}: {found[three]}")
    return found


def _settings(three: Thresholds) -> MonitorSettings:
    return MonitorSettings(**dict(zip(THRESHOLDS, three, strict=True)))


def _chosen(tuned: Mapping[Thresholds, Result], allowed: float) -> Thresholds:
    """Of those quiet enough the one that finds most, then soonest; else the quietest."""

    def alarms(three: Thresholds) -> float:
        return float(tuned[three]["quiet"]["false_alarms_per_day"])

    def gain(three: Thresholds) -> tuple[int, float]:
        surges = tuned[three]["surges"]
        return surges["found"], -(surges["delay_minutes_median"] or np.inf)

    quiet = [three for three in tuned if alarms(three) <= allowed]
    return max(quiet, key=gain) if quiet else min(tuned, key=alarms)


def _surges(
    asked: argparse.Namespace, part: Part, heads: Mapping[str, ClassHead], settings: MonitorSettings
) -> Result:
    """On the test part: with labels, with seed texts alone, with people's own scores, no season."""
    negatives = {name: _negative(head, part) for name, head in heads.items()}
    negatives["truth"] = (part.sentiment == NEGATIVE).astype(np.float64)
    # A season of one slot is none.
    flat = settings.model_copy(update={"season_s": 3600.0})
    ways = [(name, each, settings) for name, each in negatives.items()]
    ways.append(("labels, no season", negatives["labels"], flat))
    found: Result = {}
    for times in (1.0, *TIMES):
        streams = _streams(asked, part, int(10 * times), asked.streams, times)
        for name, negative, used in ways:
            figures = _figures(asked, streams, part, negative, used)
            found.setdefault(name, {})["quiet" if times == 1.0 else f"x{times:g}"] = figures
        say(f"surges x{times:g}")
    return found


def _figures(
    asked: argparse.Namespace,
    streams: list[Stream],
    part: Part,
    negative: Doubles,
    settings: MonitorSettings,
) -> Result:
    outcome = Outcome()
    for stream in streams:
        watch(outcome, stream, part, negative, settings, WARM_UP_DAYS)
    return dict(outcome.figures(asked.entities))


def _negative(head: ClassHead, part: Part) -> Doubles:
    return head.probabilities(part.vectors, RELEASE)[:, NEGATIVE]


def _described(part: Part) -> Result:
    counts = np.bincount(part.sentiment, minlength=len(SENTIMENTS)).tolist()
    return {"texts": len(part), **dict(zip(SENTIMENTS, counts, strict=True))}


if __name__ == "__main__":
    main()
