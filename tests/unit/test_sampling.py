"""From segments to windows and batches."""

from __future__ import annotations

import numpy as np

from learner.catalogue import Catalogue, make_catalogue
from learner.checkpoint import segments_from_bytes, segments_to_bytes
from learner.sampling import (
    ActionWeights,
    Segment,
    batches,
    before_border,
    holdout_border,
    is_held_out,
    make_windows,
)
from profiles.items import Item

ACTIONS = ActionWeights.from_settings({"rate": 1.0, "hide": -1.0, "view": 0.3})
CATALOGUE = make_catalogue([Item(f"i{n}", title=str(n)) for n in range(40)])


def segment(
    size: int,
    first: int = 0,
    user: int = 1,
    skipped: int = 0,
    action: str = "view",
    values: list[float] | None = None,
    catalogue: Catalogue = CATALOGUE,
) -> Segment:
    return Segment(
        user=user,
        skipped=skipped,
        first_target=first,
        items=catalogue.keys[np.arange(size) % 40],
        ts=np.arange(0.0, size * 10.0, 10.0),
        actions=np.full(size, ACTIONS.names.index(action)),
        values=np.array(values or [0.0] * size, np.float32),
        orders=np.arange(size) + 1000 * (user % 1000),
    )


def test_each_target_is_asked_once_and_follows_its_inputs() -> None:
    windows = make_windows([segment(30, first=4)], CATALOGUE, ACTIONS, length=8)

    asked: list[int] = []
    for row in range(len(windows)):
        inputs = int(windows.lengths[row])
        for column in np.flatnonzero(windows.weights[row]):
            target = int(windows.targets[row, column])
            asked.append(target)
            before = windows.items[row, :column]
            assert before.tolist() == list(range(target - column, target))
            assert column <= inputs
    assert asked == list(range(4, 30))


def test_a_users_first_event_is_predicted_from_the_start_profile_only_if_it_is_the_first() -> None:
    newcomer = make_windows([segment(3)], CATALOGUE, ACTIONS, 8)
    known = make_windows([segment(3, skipped=50)], CATALOGUE, ACTIONS, 8)

    assert np.allclose(newcomer.weights[0, :3], [0.3, 0.3, 0.3])
    assert np.allclose(known.weights[0, :3], [0.0, 0.3, 0.3])


def test_dislikes_and_low_ratings_move_the_profile_but_are_never_targets() -> None:
    hidden = make_windows([segment(3, action="hide")], CATALOGUE, ACTIONS, 8)
    rated = make_windows(
        [segment(4, action="rate", values=[5.0, 2.0, 1.0, 3.0])], CATALOGUE, ACTIONS, 8
    )

    assert len(hidden) == 0
    assert rated.weights[0, :4].tolist() == [1.0, 0.0, 0.0, 1.0]
    assert rated.items[0, :3].tolist() == [0, 1, 2]
    assert rated.values[0, :3].tolist() == [5.0, 2.0, 1.0]


def test_items_that_left_the_catalogue_are_passed_over() -> None:
    smaller = Catalogue(CATALOGUE.keys[1:], CATALOGUE.texts[1:], CATALOGUE.text_keys[1:])

    windows = make_windows([segment(5)], smaller, ACTIONS, 8)

    assert windows.lengths.tolist() == [3]
    assert windows.targets[0, :4].tolist() == [0, 1, 2, 3]


def test_gaps_are_seconds_and_unknown_at_a_windows_start() -> None:
    windows = make_windows([segment(4)], CATALOGUE, ACTIONS, 8)

    assert np.isnan(windows.gaps_s[0, 0])
    assert windows.gaps_s[0, 1:3].tolist() == [10.0, 10.0]


def test_the_most_recent_share_is_held_out_with_ties_in_order_of_arrival() -> None:
    one, two = segment(10, user=1), segment(10, user=2)

    border = holdout_border([one, two], 0.25)

    held = [is_held_out(s, border) for s in (one, two)]
    assert [int(mask.sum()) for mask in held] == [2, 3]
    learned = before_border(one, border)
    assert learned is not None
    assert learned.items.tolist() == one.items[:8].tolist()
    assert before_border(segment(10, first=9, user=1), border) is None


def test_batches_hold_every_fresh_window_once_and_their_share_of_the_past() -> None:
    fresh = make_windows([segment(6, user=u) for u in range(1, 31)], CATALOGUE, ACTIONS, 8)
    past = make_windows([segment(9, user=u) for u in range(50, 70)], CATALOGUE, ACTIONS, 10)

    made = list(batches(fresh, past, 10, 0.4, np.random.default_rng(0)))

    assert len(made) == 5
    assert [int((~b.replayed).sum()) for b in made] == [6] * 5
    assert [int(b.replayed.sum()) for b in made] == [4] * 5
    assert all(b.targets.shape[1] == b.items.shape[1] + 1 for b in made)


def test_a_little_past_is_spread_over_the_epoch_and_not_repeated() -> None:
    fresh = make_windows([segment(6, user=u) for u in range(1, 41)], CATALOGUE, ACTIONS, 8)
    past = make_windows([segment(4 + u, user=50 + u) for u in range(4)], CATALOGUE, ACTIONS, 10)

    made = list(batches(fresh, past, 10, 0.5, np.random.default_rng(0)))

    replayed = np.concatenate([b.mask[b.replayed].sum(1).numpy() for b in made])
    assert sorted(replayed.tolist()) == [3, 4, 5, 6]
    assert max(int(b.replayed.sum()) for b in made) == 1


def test_equal_seeds_give_equal_batches() -> None:
    fresh = make_windows([segment(3 + u % 9, user=u) for u in range(1, 40)], CATALOGUE, ACTIONS, 8)
    none = make_windows([], CATALOGUE, ACTIONS, 8)

    def targets(seed: int) -> list[list[list[int]]]:
        made = batches(fresh, none, 8, 0.5, np.random.default_rng(seed))
        return [b.targets.tolist() for b in made]

    assert targets(1) == targets(1)
    assert targets(1) != targets(2)


def test_segments_survive_the_way_to_bytes_and_back() -> None:
    given = [segment(5, first=2, user=2**64 - 1, skipped=7), segment(3)]

    back = segments_from_bytes(segments_to_bytes(given))

    for mine, theirs in zip(given, back, strict=True):
        assert (mine.user, mine.skipped, mine.first_target) == (
            theirs.user,
            theirs.skipped,
            theirs.first_target,
        )
        assert mine.items.tolist() == theirs.items.tolist()
        assert mine.orders.tolist() == theirs.orders.tolist()
    assert segments_from_bytes(segments_to_bytes([])) == []
