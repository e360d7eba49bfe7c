"""The oracle from end to end: read the topics, keep the ledger, compare, sum up.

Run it when the workers have caught up: an event that they have not come to counts as lost.  One
that is produced while it reads may be applied or not.
`examine` is the same without Kafka, for tests that write the records by hand.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from profiles.config import Settings
from profiles.errors import BadMessage
from profiles.notices import decode_notice
from profiles.registry import ReleaseStore
from profiles.sealing import PROFILE, RECOMMENDATION
from profiles.state import RecordLayout
from profiles.topics import DEAD_LETTERED, Topics
from profiles.wire import key64
from stream.oracle.catalogue import Catalogue, read_catalogue
from stream.oracle.changelog import Changelog, read_changelog
from stream.oracle.erasures import (
    BEGAN_ANEW,
    Letters,
    Since,
    Watch,
    find_erased,
    read_erasures,
)
from stream.oracle.keys import opened, read_key_map
from stream.oracle.ledger import Ledger, dead_places, keep_ledger
from stream.oracle.models import Encode, Model, encoder_of, load_models
from stream.oracle.profile_check import check_profiles, count_events
from stream.oracle.quality import Quality, judge, later_events
from stream.oracle.recommendation_check import check_recommendations, read_outputs
from stream.oracle.records import Raw, ends_of, read_topic
from stream.oracle.report import OracleReport

SAMPLE_SEED = 0
SERVED = ("serving", "retired", "rolled-back")


@dataclass(frozen=True, slots=True)
class Evidence:
    """Records of the topics, each to be read once.

    `before`: by partition, the end of the events when all of this began to be read, if they may
    have gone on since.
    """

    items: Iterable[Raw]
    events: Iterable[Raw]
    events_dead: Iterable[Raw]
    profiles: Iterable[Raw]
    recommendations: Iterable[Raw]
    releases: Iterable[Raw]
    users: Iterable[Raw] = ()
    erasures: Iterable[Raw] = ()
    other_dead: Iterable[Iterable[Raw]] = ()
    before: Mapping[int, int] | None = None


def run_oracle(settings: Settings, sample_users: int | None = None) -> OracleReport:
    """Check a deployment by its topics and its release store.

    Args:
        sample_users: recompute the profiles of so many users only (seeded choice).
    Raises: BrokerError, TopicError, ReleaseError, StoreCorruptError, SealError.
    """
    topics = Topics.under(settings.topics.prefix)
    broker = settings.broker
    dead = {name: topics.dlq(getattr(topics, name)) for name in DEAD_LETTERED if name != "events"}
    # Before anything else: what is produced from here on may be found in one topic and not yet, or
    # not any more, in another.
    before = ends_of(broker, topics.events)
    keys = read_key_map(settings)
    evidence = Evidence(
        items=read_topic(broker, topics.items),
        events=read_topic(broker, topics.events),
        events_dead=read_topic(broker, topics.dlq(topics.events)),
        profiles=opened(read_topic(broker, topics.profiles), keys, PROFILE),
        recommendations=opened(read_topic(broker, topics.recommendations), keys, RECOMMENDATION),
        releases=read_topic(broker, topics.releases),
        users=read_topic(broker, topics.users),
        erasures=read_topic(broker, topics.erasures),
        other_dead=[read_topic(broker, name) for name in dead.values()],
        before=before,
    )
    with tempfile.TemporaryDirectory(prefix="driftline-oracle-") as cache:
        store = ReleaseStore(settings.store.releases, Path(cache))
        return examine(evidence, settings, store, encoder_of(settings.model), sample_users)


def examine(
    evidence: Evidence,
    settings: Settings,
    store: ReleaseStore,
    encode: Encode,
    sample_users: int | None = None,
) -> OracleReport:
    """Compare what stands in the records with what should."""
    clock = _Clock()
    erased, layout = read_erasures(evidence.erasures), RecordLayout.of(settings)
    letters = Letters.of(evidence.events_dead)
    others = [Letters.of(records).standing for records in evidence.other_dead]
    dead = dead_places(letters.standing)
    kept, sent, declared = Watch(erased), Watch(erased), Watch(erased)
    log = read_changelog(kept.over(evidence.profiles), layout)
    # Compaction takes tombstones after a day.
    log = dataclasses.replace(log, erased=log.erased | erased.keys())
    clock.lap("changelog")
    # Both after the changelog: so no profile can know an item or event that they do not.
    catalogue = read_catalogue(evidence.items, settings.data.item_text, settings.model.vectors)
    ledger = keep_ledger(evidence.events, catalogue, settings, dead, erased)
    clock.lap("events")
    outputs = read_outputs(sent.over(evidence.recommendations), ledger, log, catalogue)
    for _ in declared.over(evidence.users):
        pass
    is_accepted = settings.privacy.after_erasure == BEGAN_ANEW
    found = find_erased(
        Since(erased, ledger.appended_ms, declared.held(), is_accepted),
        kept.held(),
        sent.held(),
        [letter for part in (letters.standing, *others) for letter in part],
        layout,
    )
    clock.lap("recommendations")
    served = served_releases(evidence.releases)
    wanted = {int(key) for key in np.unique(log.release)} | {key64(name) for name in served}
    models = load_models(store, wanted, catalogue, encode, ledger.texts)
    clock.lap("releases")
    counts = count_events(ledger, log, evidence.before)
    profiles = check_profiles(
        ledger, log, models, settings.profile.history, _chosen(len(ledger.users), sample_users)
    )
    clock.lap("profiles")
    verdict = check_recommendations(outputs, log, models)
    clock.lap("scores")
    first, trained, last, promoted = _compare(served, models, ledger, catalogue, settings)
    clock.lap("quality")
    p50, p95, p99 = _percentiles(outputs.latency_ms)
    written50, _, written99 = _percentiles(outputs.written_ms)
    return OracleReport(
        events_produced=ledger.produced,
        events_expected=_expected(ledger, log),
        events_applied=counts.applied,
        events_lost=counts.lost,
        events_double_applied=counts.doubled,
        events_repeated=ledger.repeated,
        events_over_rate=ledger.over_rate,
        dead_lettered=len(letters.standing) + sum(map(len, others)),
        dead_letters_missing=sum(
            not letters.is_deleted(*place)
            for place in ledger.dead.keys() - dead.keys() - ledger.forgiven
            if evidence.before is None or place[1] < evidence.before.get(place[0], 0)
        ),
        dead_letters_unexpected=len(dead.keys() - ledger.dead.keys()),
        users=len(ledger.users),
        users_erased=len(log.erased),
        erased_users_found=len(found),
        histories_wrong=counts.histories_wrong,
        profiles_checked=len(profiles.checked),
        profiles_wrong=len(profiles.wrong),
        profiles_skipped=len(profiles.skipped),
        profile_points=profiles.points,
        profile_worst_difference=profiles.worst,
        changelog_records=len(log.user),
        changelog_stale=profiles.stale,
        recommendations=len(outputs.user),
        recommendations_repeated=outputs.repeated,
        recommendations_unreadable=outputs.unreadable,
        recommendations_checked=verdict.checked,
        recommendations_unmatched=verdict.unmatched,
        recommendations_uncertain=verdict.uncertain,
        mixed_release_recommendations=verdict.mixed,
        releases_served=served,
        releases_promoted=promoted,
        swaps_by_partition=dict(sorted(outputs.changes.items())),
        event_to_recommendation_p50_ms=p50,
        event_to_recommendation_p95_ms=p95,
        event_to_recommendation_p99_ms=p99,
        event_to_output_p50_ms=written50,
        event_to_output_p99_ms=written99,
        hr10_first_release=first.hr10,
        hr10_last_release=last.hr10,
        ndcg10_first_release=first.ndcg10,
        ndcg10_last_release=last.ndcg10,
        hr10_first_trained_release=trained.hr10,
        quality_events=last.events,
        quality_users=last.users,
        seconds=clock.laps,
    )


def served_releases(records: Iterable[Raw]) -> list[str]:
    """Every release that has served, in order; the one that serves now comes last.

    A release's first notice decides its place: what is said of it later has a higher sequence.
    """
    first: dict[str, int] = {}
    newest: dict[str, tuple[int, str]] = {}
    for record in records:
        try:
            notice = decode_notice(record.value)
        except BadMessage:
            continue
        if notice.status in SERVED:
            first[notice.release_id] = min(notice.sequence, first.get(notice.release_id, 2**62))
        if notice.sequence >= newest.get(notice.release_id, (-1, ""))[0]:
            newest[notice.release_id] = (notice.sequence, notice.status)
    serving = [name for name in first if newest[name][1] == "serving"]
    now = max(serving, key=lambda name: newest[name], default=None)
    order = sorted(first, key=lambda name: first[name])
    return [name for name in order if name != now] + ([now] if now else [])


def _compare(
    served: list[str],
    models: Mapping[int, Model],
    ledger: Ledger,
    catalogue: Catalogue,
    settings: Settings,
) -> tuple[Quality, Quality, Quality, int]:
    """First, first trained and last release on the same events; how many trained ones served."""
    nothing = Quality(0, 0, 0.0, 0.0)
    found = [models[key64(name)] for name in served if key64(name) in models]
    trained = [model for model in found if model.manifest.trained_events > 0]
    if not found or not len(ledger.items):
        return nothing, nothing, nothing, len(trained)
    last = found[-1]
    topic = Topics.under(settings.topics.prefix).events
    border = {
        int(place.rpartition("/")[2]): offset
        for place, offset in last.manifest.offsets.items()
        if place.rpartition("/")[0] == topic
    }
    later = later_events(ledger, border, len(catalogue.ids), settings.profile.history)
    if not len(later.row):
        return nothing, nothing, nothing, len(trained)
    first = judge(found[0], last, ledger, later)
    second = judge(trained[0], last, ledger, later) if trained else nothing
    return first, second, judge(last, found[0], ledger, later), len(trained)


def _expected(ledger: Ledger, log: Changelog) -> int:
    """Events that should be in profiles: those of erased users need not be."""
    kept = [user not in log.erased for user in ledger.users]
    return int(ledger.count[np.array(kept, dtype=np.bool_)].sum()) if kept else 0


def _chosen(users: int, sample: int | None) -> npt.NDArray[np.bool_]:
    chosen = np.ones(users, dtype=np.bool_)
    if sample is not None and sample < users:
        chosen[:] = False
        chosen[np.random.default_rng(SAMPLE_SEED).choice(users, sample, replace=False)] = True
    return chosen


def _percentiles(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Median, 95th and 99th; 0 where there is nothing."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 0.0, 0.0
    p50, p95, p99 = np.percentile(known, [50, 95, 99]).round(2).tolist()
    return p50, p95, p99


class _Clock:
    """Seconds per part."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last_s = time.perf_counter()

    def lap(self, name: str) -> None:
        now_s = time.perf_counter()
        self.laps[name] = round(now_s - self._last_s, 2)
        self._last_s = now_s
