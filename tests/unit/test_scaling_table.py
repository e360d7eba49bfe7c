"""From result files to machines: what the table in docs/scaling.md is computed from."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks.scaling_assumptions import Assumptions, reasons
from benchmarks.scaling_table import (
    DOCUMENT,
    Measured,
    ResultMissing,
    plan,
    put_between,
    read_measured,
    render,
)

pytestmark = pytest.mark.unit

ASSUMED = Assumptions()
RESULTS = {
    "latency": {"catalogues": [{"items": 10_000, "sustained_per_s": 4000.0}]},
    "throughput": {"events_per_s": {"driftline": {"median": 20_000.0}}, "event_bytes": 100.0},
    "scale": {
        "parts": {
            "users": {"record_bytes": 2048, "sizes": [{"disk_bytes_per_user": 1000.0}]},
            "restore": {"sizes": [{"seconds_per_100k": 5.0}]},
            "memory": {"sizes": [{"events": 900_000, "fill_s": 10.0}]},
        }
    },
    "swap": {"swaps": [{"finished": True, "users_rebuilt_per_s": 5000.0}, {"finished": False}]},
    "learner": {"devices": {"cpu": {"examples_per_s": {"ours": {"median": 100.0}}}}},
}


def write_results(folder: Path, leave_out: str = "") -> Path:
    for name, result in RESULTS.items():
        if name != leave_out:
            (folder / f"{name}.json").write_text(json.dumps(result))
    return folder


@pytest.fixture
def measured(tmp_path: Path) -> Measured:
    return read_measured(write_results(tmp_path))


def test_measured_figures_are_those_of_the_result_files(measured: Measured) -> None:
    assert (measured.sustained_per_s, measured.event_bytes) == (4000.0, 100.0)
    assert (measured.restored_per_s, measured.learner_read_per_s) == (20_000.0, 90_000.0)
    assert measured.rebuilt_per_s == 5000.0


@pytest.mark.parametrize("name", list(RESULTS))
def test_a_missing_result_names_the_benchmark_to_run(tmp_path: Path, name: str) -> None:
    write_results(tmp_path, leave_out=name)

    with pytest.raises(ResultMissing, match=f"make bench-{name}"):
        read_measured(tmp_path)


def test_a_hundred_million_users_by_hand(measured: Measured) -> None:
    made = plan(100_000_000, measured, ASSUMED)

    assert made.mean_per_s == pytest.approx(6944.4, abs=0.1)
    assert made.peak_per_s == pytest.approx(3 * 6944.4, abs=0.3)
    # 20,833 a second, half as much again for a lost zone, half of 4,000 for each worker.
    assert made.workers == 16
    assert made.partitions == 32
    assert made.restore_s == pytest.approx(100e6 / 16 / 20_000)
    assert made.worker_disk_gib == pytest.approx(1.5 * 100e9 / 2**30)


def test_ten_times_the_users_cost_about_ten_times_as_much(measured: Measured) -> None:
    few, many = (
        sum(plan(users, measured, ASSUMED).dollars_per_month.values())
        for users in (100_000_000, 1_000_000_000)
    )

    assert 9.0 < many / few < 11.0


def test_the_first_bottleneck_is_what_would_break_first(measured: Measured) -> None:
    slow = dataclasses.replace(measured, learner_read_per_s=100.0)

    name, share = next(iter(plan(1_000_000, slow, ASSUMED).limits.items()))

    assert name == "one learner reads every event"
    assert share == pytest.approx(69.4 / 100.0, abs=0.01)


def test_the_table_names_every_assumption_with_its_reason(measured: Measured) -> None:
    made = render(measured, ASSUMED, "somewhere")

    for name, why in reasons().items():
        assert f"`{name}`" in made
        assert why in made
    assert "first bottleneck" in made


def test_an_assumption_can_be_changed_and_an_unknown_one_is_refused() -> None:
    assert Assumptions.with_changes(["zones=2"]).zones == 2.0
    with pytest.raises(ValueError, match="no assumption is called 'zone'"):
        Assumptions.with_changes(["zone=2"])


def test_the_document_has_the_place_that_the_table_is_written_to() -> None:
    text = DOCUMENT.read_text()

    assert "the new table" in put_between(text, "the new table")
    with pytest.raises(ValueError, match="once each"):
        put_between("no markers here", "")
