"""Words are kept where confidence is learned from them: bounded, sealed, erased, never twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from learner.answers import examine_answers, held_cases
from learner.confidence import fit_confidence, learn_confidence
from learner.conversations import STEPS, Case, Step, Turn, cases_from_bytes
from learner.evaluation import Model
from learner.feeds import verdicts_of_actions
from learner.gate import NOTHING, Evidence, decide
from learner.language import LanguageModel
from learner.replay import ReplayBuffer
from learner.rounds import load_plan, plan_round, save_plan
from learner.sealed_disk import LearnerKeys
from profiles.config import load_settings
from profiles.errors import LearnerError, SettingsError
from profiles.key_file import VersionedKeys
from profiles.sealing import MasterKeys
from profiles.wire import key64
from tests.unit.learning_world import ITEMS, USERS, World, learn, make_world, with_learner

pytestmark = pytest.mark.unit


def open_buffer(path: Path, limit: int = 10, keys: LearnerKeys | None = None) -> ReplayBuffer:
    return ReplayBuffer(
        path,
        buffer_bytes=100_000,
        sequence_length=8,
        seed=0,
        actions=["ask", "accept", "reject"],
        conversations=limit,
        keys=keys,
    )


def says(user: int, offset: int, text: str) -> Turn:
    return Turn(0, offset, user, Step(text, 0, 0, 0.0, 1e6 + offset), 0)


def does(user: int, offset: int, item: int, verdict: int) -> Turn:
    return Turn(0, offset, user, Step("", item, 1, 0.0, 1e6 + offset), verdict)


def take(buffer: ReplayBuffer, *turns: Turn) -> None:
    buffer.ingest("events", [], {0: turns[-1].offset + 1}, turns)


def told(case: Case) -> tuple[list[str | int], tuple[int, ...], tuple[int, ...]]:
    return [step.text or step.item for step in case.steps], case.accepted, case.rejected


def test_a_verdict_belongs_to_what_was_said_and_done_before_the_last_words(
    tmp_path: Path,
) -> None:
    buffer = open_buffer(tmp_path)
    take(
        buffer,
        says(1, 0, "no power"),
        does(1, 1, 70, 0),
        says(1, 2, "lamp is dark"),
        does(1, 3, 71, -1),
        does(1, 4, 72, 1),
    )
    (case,) = buffer.conversations.cases()
    assert told(case) == (["no power", 70, "lamp is dark"], (72,), (71,))
    take(buffer, says(1, 5, "thanks"), does(1, 6, 73, 1))
    (case,) = buffer.conversations.cases()
    assert told(case)[1:] == ((73,), ())
    buffer.close()


def test_the_last_word_on_an_item_counts(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    take(buffer, says(1, 0, "dark"), does(1, 1, 71, 1), does(1, 2, 71, -1))
    assert told(buffer.conversations.cases()[0])[1:] == ((), (71,))
    buffer.close()


def test_a_verdict_without_words_says_nothing(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    take(buffer, does(1, 0, 70, 1), says(2, 1, "hello"))
    assert buffer.conversations.cases() == []
    buffer.close()


def test_what_was_read_before_a_restart_is_not_taken_again(tmp_path: Path) -> None:
    turns = [says(1, 0, "dark"), does(1, 1, 71, -1), does(1, 2, 72, 1)]
    buffer = open_buffer(tmp_path)
    take(buffer, *turns)
    once = buffer.conversations.cases()
    buffer.close()
    again = open_buffer(tmp_path)
    take(again, *turns)
    assert again.conversations.cases() == once
    take(again, *turns, says(1, 3, "still"), does(1, 4, 73, 1))
    assert told(again.conversations.cases()[0])[0] == ["dark", 71, 72, "still"]
    again.close()


def test_the_least_recent_go_when_there_are_too_many_and_all_when_it_is_switched_off(
    tmp_path: Path,
) -> None:
    buffer = open_buffer(tmp_path, limit=3)
    for user in range(1, 6):
        take(buffer, says(user, 10 * user, "dark"), does(user, 10 * user + 1, 70, 1))
    take(buffer, says(3, 60, "again"), does(3, 61, 70, 1), says(6, 62, "x"))
    assert {case.user for case in buffer.conversations.cases()} == {3, 5}
    assert buffer.conversations.held == 3
    buffer.close()
    without = open_buffer(tmp_path, limit=0)
    assert (without.conversations.held, without.conversations.cases()) == (0, [])
    without.close()


def test_a_long_conversation_keeps_its_last_steps(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    take(buffer, *(says(1, at, f"words {at}") for at in range(50)), does(1, 50, 70, 1))
    (case,) = buffer.conversations.cases()
    assert [step.text for step in case.steps] == [f"words {at}" for at in range(50 - STEPS, 50)]
    buffer.close()


def test_an_erased_user_leaves_nothing_and_the_receipt_counts_it(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    take(buffer, says(1, 0, "a secret"), does(1, 1, 70, 1), says(2, 2, "open"), does(2, 3, 70, 1))
    report = buffer.erase([1])
    assert report[1][0]["conversation_steps"] == 3
    assert [case.user for case in buffer.conversations.cases()] == [2]
    buffer.close()
    held = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"open" in held
    assert b"a secret" not in held


def test_encrypted_words_are_not_in_the_clear(tmp_path: Path) -> None:
    keys = LearnerKeys(tmp_path / "keys", MasterKeys(VersionedKeys({1: bytes(range(32))})))
    buffer = open_buffer(tmp_path / "buffer", keys=keys)
    take(buffer, says(1, 0, "a secret"), does(1, 1, 70, 1))
    assert told(buffer.conversations.cases()[0])[0] == ["a secret"]
    buffer.close()
    keys.close()
    held = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"a secret" not in held


def test_a_domains_positive_actions_accept_and_negative_weights_reject() -> None:
    assert verdicts_of_actions(load_settings(domain="support")) == {
        "accept": 1,
        "helpful": 1,
        "reject": -1,
    }
    plain = verdicts_of_actions(load_settings(actions={"ask": 0.0, "like": 1.0, "hide": -1.0}))
    assert plain == {"like": 1, "hide": -1}


def test_private_rounds_keep_no_conversations() -> None:
    private = {"dp_noise": 1.0, "lora_steps": 0, "replay_share": 0.0, "judged_conversations": 5}
    with pytest.raises(SettingsError, match="judged_conversations=0, not 5"):
        load_settings(learner=private)


def test_a_fit_finds_what_made_the_verdicts_and_too_few_fit_nothing() -> None:
    rng = np.random.default_rng(3)
    x = np.stack([rng.normal(4.0, 1.0, 4000), rng.exponential(0.5, 4000)], axis=1)
    chance = 1.0 / (1.0 + np.exp(-(0.5 * x[:, 0] + 2.0 * x[:, 1] - 3.0)))
    right = rng.random(4000) < chance
    found = fit_confidence(x, right)
    assert found is not None
    assert (found.score, found.margin, found.intercept) == pytest.approx((0.5, 2.0, -3.0), abs=0.3)
    assert fit_confidence(x[:30], np.arange(30) < 19) is None


@pytest.fixture
def world(tmp_path: Path, tiny_language_model: Path) -> World:
    made = make_world(tmp_path, tiny_language_model)
    with_learner(made, judged_conversations=1000)
    return made


def cases_about(world: World, count: int, said_at: Sequence[float] = (1e6,)) -> list[Case]:
    """Somebody names an item and accepts it; every second time, another one. Synthetic."""
    action = world.actions.names.index("view")
    found = []
    for user in range(count):
        item = world.items[user % ITEMS]
        taken = world.items[(user + (user // ITEMS) % 2) % ITEMS]
        said = Step(item.full_text(), 0, action, 0.0, said_at[user % len(said_at)])
        found.append(Case(user, (said,), (key64(taken.item_id),), ()))
    return found


def test_a_model_learns_how_sure_it_may_be_and_a_lost_item_does_no_harm(world: World) -> None:
    release = world.first_release()
    model = Model(release.head, release.items.vectors, release.items.bias)
    language = LanguageModel.load(world.settings.model, None, "cpu", 0)
    cases = cases_about(world, 400)
    gone = Step("", key64("gone"), 0, 0.0, 1e6)
    cases[0] = Case(0, (gone, *cases[0].steps), cases[0].accepted, ())
    found, figures = learn_confidence(
        model, language, cases, world.catalogue, exclude_seen=False, listed=5
    )
    assert figures["confidence_cases"] == 400
    assert found is not None
    assert 0.2 < figures["confidence_base_rate"] < 0.8, "both happen"
    assert figures["confidence_ece"] < 0.15
    none, said = learn_confidence(model, language, [], world.catalogue, exclude_seen=True, listed=5)
    assert (none, said) == (None, {})


def test_who_answers_worse_is_told_from_who_answers_as_before(world: World) -> None:
    release = world.first_release()
    model = Model(release.head, release.items.vectors, release.items.bias)
    upside_down = Model(release.head, -release.items.vectors, release.items.bias)
    reader = LanguageModel.load(world.settings.model, None, "cpu", 0)
    cases = cases_about(world, 2 * ITEMS)
    lost = Case(9, cases[0].steps, (key64("gone"),), ())
    unjudged = Case(9, cases[0].steps, (), ())
    asked = held_cases([*cases, lost, unjudged], (0.0, 0))
    assert len(asked) == len(cases) + 1
    assert held_cases(cases, (1e6, 0)) == [], "said when the round still learned"
    same = examine_answers(
        (model, reader), (model, reader), asked, world.catalogue, exclude_seen=False
    )
    assert (same.events, same.standard_error) == (len(cases), 0.0)
    assert same.parent == same.candidate > 0
    worse = examine_answers(
        (model, reader), (upside_down, reader), asked, world.catalogue, exclude_seen=False
    )
    assert worse.candidate < worse.parent
    evidence = Evidence(same, NOTHING, True, 1.0, worse)
    assert decide(evidence, world.settings.learner).reason.startswith("answers:")


def test_a_round_takes_its_conversations_from_the_plan_into_the_manifest(world: World) -> None:
    buffer = world.buffer()
    buffer.ingest("events", world.rows(0, 20), {0: 20 * USERS})
    turns = []
    for at, case in enumerate(cases_about(world, 60, said_at=[1e6, 9e9])):
        place = (1, 2 * at, case.user + 1)
        turns.append(Turn(*place, case.steps[0], 0))
        done = Step("", case.accepted[0], 0, 0.0, 1e6)
        turns.append(Turn(1, 2 * at + 1, case.user + 1, done, 1))
    buffer.ingest("events", [], {1: 120}, turns)
    first = world.first_release()
    plan = plan_round(buffer, first.manifest, world.settings, "count", {})
    assert set(range(1, 61)) <= plan.users(), "an erasure must find them"
    save_plan(world.root / "plan", plan)
    assert load_plan(world.root / "plan") == plan
    manifest = learn(world, buffer, first).manifest
    buffer.close()
    assert manifest.metrics["confidence_cases"] == 60
    assert manifest.metrics["answers_events"] == 30, "those said in what the round held out"


def test_a_damaged_conversation_says_what_to_do() -> None:
    assert cases_from_bytes(b"") == []
    with pytest.raises(LearnerError, match="move the learner's directory away"):
        cases_from_bytes(b"\xc1")
