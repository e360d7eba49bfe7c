"""A learning round from end to end, between the buffer that feeds it and the topic that tells.

    plan_round   what to learn from, frozen: fresh and past segments, exams, parent (main thread)
    save_plan    the plan on disk, so that a killed learner resumes this very round
    run_round    train, sit the exams beside the parent, pass the gate, publish (any thread; no
                 buffer, no Kafka)

The newest `holdout_share` of the fresh events is held out.  Half of the users (`is_exam_user`)
sit the gate's exam there, the others' events decide early stopping, so the gate judges on events
that had no say in the training at all.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from learner.answers import examine_answers, held_cases
from learner.bootstrap import new_manifest, publish_release
from learner.calibration import Clicks, calibrate
from learner.catalogue import Catalogue
from learner.checkpoint import (
    Seal,
    Unseal,
    as_it_is,
    digest,
    segments_from_bytes,
    segments_to_bytes,
    write_atomically,
)
from learner.confidence import learn_confidence
from learner.conversations import cases_from_bytes, cases_to_bytes
from learner.evaluation import (
    Model,
    align,
    backward_transfer,
    examine,
    forgetting,
    make_exam,
    next_matrix,
    plasticity,
)
from learner.gate import NOTHING, Decision, Evidence, decide
from learner.graduation import is_exam_user
from learner.private_steps import noisy_counts, spent
from learner.reach import reach
from learner.replay import ReplayBuffer
from learner.round_types import Candidate, Hooks, Parent, RoundData
from learner.sampling import ActionWeights, Segment, before_border, holdout_border, is_held_out
from learner.text_cache import load_text, save_text
from learner.trainer import train_round
from learner.unknown_tokens import UNKNOWN_TOKENS
from profiles.config import Settings
from profiles.encoder import PROBE_TEXTS, TextEncoder
from profiles.errors import LearnerError
from profiles.layers import Floats
from profiles.manifest import Manifest, PrivacySpent
from profiles.registry import ReleaseStore
from profiles.release import ItemTable, Release
from profiles.settings.learning import LearnerSettings

HOLDOUT_EVENTS = 1_000
"""Events held out, at most: more would be evidence that nobody needs, taken from the training."""
REPLAY_TIMES = 8
"""Past events at hand for each fresh one, so that every epoch replays others."""
LONG_AGO_SEGMENTS = 2_000
"""Exam segments of earlier periods looked at in one round, spread over the periods."""


class Plan(msgspec.Struct, frozen=True):
    """What one round learns from.  The segment fields are `segments_to_bytes` payloads.

    `upto`: arrival number at which it ends; `border`: (ts, arrival number) from which on fresh
    events are held out; `period`: number of its exam, 1 for the first; `cases`: conversations with
    a verdict.
    """

    number: int
    parent_id: str
    upto: int
    border: tuple[float, int]
    period: int
    reason: str
    fresh_events: int
    offsets: dict[str, int]
    fresh: bytes
    past: bytes
    exams: dict[int, bytes]
    cases: bytes = b""

    def users(self) -> set[int]:
        """Pseudonyms of everyone whose events are in it."""
        payloads = (self.fresh, self.past, *self.exams.values())
        learned = {segment.user for payload in payloads for segment in segments_from_bytes(payload)}
        return learned | {case.user for case in cases_from_bytes(self.cases)}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a round came to: a release in the store, and whether it may serve."""

    manifest: Manifest
    decision: Decision
    seconds: dict[str, float]


def plan_round(
    buffer: ReplayBuffer,
    parent: Manifest,
    settings: Settings,
    reason: str,
    offsets: Mapping[str, int],
) -> Plan:
    """Freeze what the next round learns from.  Raises: LearnerError when nothing is fresh."""
    fresh = buffer.fresh()
    if not fresh:
        raise LearnerError("no round without fresh events; wait for more")
    seed = settings.learner.seed
    rng = np.random.default_rng([seed, buffer.rounds])
    events = sum(len(s.items) - s.first_target for s in fresh)
    policy = settings.learner.replay_policy
    wanted = REPLAY_TIMES * events if settings.learner.replay_share > 0 else 0
    past = buffer.replay(wanted, rng, policy) if wanted else []
    exams = buffer.draw_exams(LONG_AGO_SEGMENTS, rng)
    return Plan(
        number=buffer.rounds + 1,
        parent_id=parent.release_id,
        upto=buffer.next_order,
        border=round_border(fresh, settings.learner),
        period=len(parent.forgetting) + 1,
        reason=reason,
        fresh_events=events,
        offsets=dict(offsets),
        fresh=segments_to_bytes(fresh),
        past=segments_to_bytes(past),
        exams={period: segments_to_bytes(segments) for period, segments in exams.items()},
        cases=cases_to_bytes(buffer.conversations.cases()),
    )


def round_border(fresh: Sequence[Segment], settings: LearnerSettings) -> tuple[float, int]:
    """(ts, arrival number) from which on a round holds these events out."""
    events = sum(len(s.items) - s.first_target for s in fresh)
    return holdout_border(fresh, min(settings.holdout_share, HOLDOUT_EVENTS / events))


def save_plan(path: Path, plan: Plan, seal: Seal = as_it_is) -> None:
    """Write the plan, atomically.  Raises: StoreError."""
    write_atomically(path, seal(msgspec.msgpack.encode(plan)))


def load_plan(path: Path, unseal: Unseal = as_it_is) -> Plan | None:
    """The plan of an unfinished round, or None if there is none that can be read."""
    try:
        payload = unseal(path.read_bytes())
        return None if payload is None else msgspec.msgpack.decode(payload, type=Plan)
    except (OSError, msgspec.DecodeError):
        return None


def round_identity(plan: Plan, catalogue: Catalogue, settings: Settings) -> str:
    """Names a round's work: a checkpoint of other data, items or settings does not fit."""
    return digest(
        msgspec.msgpack.encode(plan),
        catalogue.keys.tobytes(),
        catalogue.text_keys.tobytes(),
        settings.learner.model_dump_json(),
        settings.model.model_dump_json(),
    )


def run_round(
    settings: Settings,
    plan: Plan,
    catalogue: Catalogue,
    parent: Release,
    store: ReleaseStore,
    sequence: int,
    directory: Path,
    hooks: Hooks,
) -> Outcome:
    """Train, examine, decide and publish into the store; announcing is the caller's.

    `directory` keeps the text vectors of the last release.
    Raises: LearnerError, ModelError, ReleaseError, StoreError, RoundCancelled.
    """
    actions = ActionWeights.from_settings(settings.actions)
    fresh, past = segments_from_bytes(plan.fresh), segments_from_bytes(plan.past)
    training, held = split(fresh, plan.border)
    counts_before, counts = round_counts(
        parent.items, catalogue, training, settings.learner, hooks.entropy()
    )
    data = RoundData(
        catalogue=catalogue,
        fresh=training,
        past=past,
        validation=[s for s in held if not is_exam_user(s.user)],
        counts=counts,
        text=load_text(directory, parent.release_id, catalogue, parent.head.shape.text_dim),
    )
    start = Parent(
        parent.head, parent.items, parent.adapter_directory, parent.manifest.trained_events > 0
    )
    candidate = train_round(settings.model, settings.learner, actions, start, data, hooks)
    begun = hooks.clock()
    exams = {period: segments_from_bytes(payload) for period, payload in plan.exams.items()}
    now = [s for s in held if is_exam_user(s.user)]
    old_model = align(parent.head, parent.items, catalogue, candidate.text_before)
    new_model = Model(candidate.head, candidate.items.vectors, candidate.items.bias)
    exclude_seen = settings.serving.exclude_seen
    results = examine(
        old_model,
        new_model,
        now,
        exams,
        catalogue,
        actions,
        counts_before,
        exclude_seen=exclude_seen,
    )
    clicks = Clicks(None, {})
    if settings.learner.objective != "next_item":
        clicks = calibrate(
            new_model,
            data.validation,
            now,
            catalogue,
            actions,
            settings.learner.positive_actions,
        )
    cases = cases_from_bytes(plan.cases)
    confidence, sureness = learn_confidence(
        new_model,
        candidate.language,
        cases,
        catalogue,
        exclude_seen=exclude_seen,
        listed=settings.serving.k,
    )
    exam = make_exam(now, catalogue, actions)
    reached = {
        **reach(old_model, exam, counts_before, exclude_seen=exclude_seen).figures("parent"),
        **reach(new_model, exam, counts_before, exclude_seen=exclude_seen).figures("candidate"),
    }
    answers = NOTHING
    if asked := held_cases(cases, plan.border):
        reader = TextEncoder.load(settings.model, parent.adapter_directory)
        answers = examine_answers(
            (old_model, reader),
            (new_model, candidate.language),
            asked,
            catalogue,
            exclude_seen=exclude_seen,
        )
    matrix = next_matrix(parent.manifest.forgetting, results.row, plan.period, results.recent)
    cosine = _reloaded_cosine(settings, candidate, directory)
    decision = decide(
        Evidence(results.recent, results.long_ago, _is_finite(candidate), cosine, answers),
        settings.learner,
    )
    seconds = {**candidate.seconds, "evaluate": hooks.clock() - begun}
    metrics = {
        **decision.figures,
        **results.figures,
        **clicks.figures,
        **sureness,
        **reached,
        "validation_loss": candidate.validation_loss,
        "start_loss": candidate.start_loss,
        "backward_transfer": backward_transfer(matrix),
        "forgetting": forgetting(matrix),
        "plasticity": plasticity(matrix),
        "probe_cosine": cosine,
        "steps": float(candidate.steps),
        "examples": float(candidate.examples),
        UNKNOWN_TOKENS: candidate.language.encoder.unknown_share(catalogue.texts),
        **{f"seconds_{name}": value for name, value in seconds.items()},
    }
    users = sorted({s.user for s in (*training, *past)})
    # Whoever knows all users but one could try her against this hash: none in a private round.
    digest_of_users = hashlib.sha256(np.array(users, "<u8").tobytes()).hexdigest()
    privacy: PrivacySpent | msgspec.UnsetType = msgspec.UNSET
    if candidate.private_steps:
        delta = settings.learner.dp_delta
        privacy = spent(parent.manifest, candidate.private_steps, delta)
        metrics["privacy_epsilon"], digest_of_users = privacy.epsilon, ""
    manifest = msgspec.structs.replace(
        new_manifest(settings, candidate.head.shape, sequence, parent.release_id, time.time()),
        offsets=plan.offsets,
        trained_events=parent.manifest.trained_events
        + sum(len(s.items) - s.first_target for s in training),
        contributors=len(users),
        contributors_digest=digest_of_users,
        privacy=privacy,
        metrics={name: float(value) for name, value in metrics.items()},
        forgetting=matrix,
        calibration=clicks.calibration,
        confidence=msgspec.UNSET if confidence is None else confidence,
        note=f"round {plan.number}, due by {plan.reason}; gate: {decision.reason}",
    )
    begun = hooks.clock()
    finished = publish_release(
        settings, store, manifest, candidate.head, candidate.items, candidate.language
    )
    save_text(directory, finished.release_id, catalogue, candidate.text)
    return Outcome(finished, decision, {**seconds, "publish": hooks.clock() - begun})


def split(
    fresh: Sequence[Segment], border: tuple[float, int]
) -> tuple[list[Segment], list[Segment]]:
    """What a round trains on, and what it holds out from the border on."""
    training = [part for s in fresh if (part := before_border(s, border)) is not None]
    return training, [held_part(s, border) for s in fresh if is_held_out(s, border).any()]


def round_counts(
    items: ItemTable,
    catalogue: Catalogue,
    training: Sequence[Segment],
    settings: LearnerSettings,
    entropy: int,
) -> tuple[Floats, Floats]:
    """`item_counts` as the settings bound them, with noise in a private round."""
    before, counts = item_counts(items, catalogue, training, settings.user_item_events)
    if settings.dp_noise:
        counts = noisy_counts(before, training, catalogue, settings, entropy)
    return before, counts


def item_counts(
    items: ItemTable, catalogue: Catalogue, training: Sequence[Segment], item_events: int = 0
) -> tuple[Floats, Floats]:
    """Events behind each catalogue item: before this round, and with it.  Shapes: two (N,).

    `item_events`: as how many one user's events on one item count, at most; 0: as all.
    """
    before = np.zeros(len(catalogue), np.float32)
    rows = catalogue.rows(items.keys)
    before[rows[rows >= 0]] = items.counts[rows >= 0]
    counted = np.zeros(len(catalogue))
    for segment in training:
        found = catalogue.rows(segment.items[segment.first_target :])
        named, times = np.unique(found[found >= 0], return_counts=True)
        counted[named] += np.minimum(times, item_events) if item_events else times
    return before, (before + counted).astype(np.float32)


def held_part(segment: Segment, border: tuple[float, int]) -> Segment:
    """The same events, asked about from the border on."""
    first = int(np.argmax(is_held_out(segment, border)))
    return replace(segment, first_target=max(first, segment.first_target))


def _is_finite(candidate: Candidate) -> bool:
    table = candidate.items
    return all(np.isfinite(a).all() for a in (table.vectors, table.ids, table.bias, candidate.text))


def _reloaded_cosine(settings: Settings, candidate: Candidate, directory: Path) -> float:
    """Lowest cosine of the probe texts between the trainer's model and a fresh load of what it
    saved: what a worker will see."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        candidate.language.save(Path(folder))
        loaded = TextEncoder.load(settings.model, adapter=Path(folder))
        seen = loaded.exact(PROBE_TEXTS)
    return float((seen * candidate.language.probe()).sum(axis=1).min())
