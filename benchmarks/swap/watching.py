"""What a swap looks like from outside: a thread that announces releases and reads /metrics.

Looking every 50 ms bounds how well a time is known; the worker's own histograms say the rest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.deployment import Deployment, WorkerProcess
from benchmarks.harness import Result, stolen_s

POLL_S = 0.05
LAG = "driftline_event_loop_lag_seconds"
MOST = 0.01
"""Share of the profiles that may still be stale when "99% of them" are in the new space."""
WATCHED = (
    "driftline_serving_release_info",
    "driftline_profiles",
    "driftline_profiles_stale",
    "driftline_profiles_rebuilt_total",
    *(f"{LAG}_{part}" for part in ("bucket", "sum", "count")),
)
"""Twenty looks a second at everything would take several percent of the worker's core."""


@dataclass(slots=True)
class Swap:
    """One release on its way.  Times are Unix seconds, as the watcher saw them."""

    release_id: str
    announced_s: float
    flipped_s: float | None = None
    mostly_s: float | None = None
    rebuilt_s: float | None = None
    by_path: dict[str, float] = field(default_factory=dict)

    def result(self) -> Result:
        """Its times and rates, for the report."""
        if self.flipped_s is None or self.mostly_s is None or self.rebuilt_s is None:
            return {"release": self.release_id, "finished": False}
        rebuild_s = max(self.rebuilt_s - self.flipped_s, POLL_S)
        users = sum(self.by_path.values())
        return {
            "release": self.release_id,
            "finished": True,
            "notice_to_flip_s": round(self.flipped_s - self.announced_s, 3),
            "flip_to_99_percent_s": round(max(self.mostly_s - self.flipped_s, POLL_S), 3),
            "notice_to_all_profiles_s": round(self.rebuilt_s - self.announced_s, 3),
            "rebuild_s": round(rebuild_s, 3),
            "users_rebuilt": self.by_path,
            "users_rebuilt_per_s": round(users / rebuild_s, 1),
        }


@dataclass(frozen=True, slots=True)
class Look:
    """One look at /metrics."""

    at_s: float
    samples: Mapping[str, float]
    stolen_s: float


class Watcher:
    """Announces releases in their time, and looks at the worker all the while.

    `before_each` is called with the number of the swap (0 first) just before its notice.
    """

    def __init__(
        self,
        made: Deployment,
        worker: WorkerProcess,
        releases: list[str],
        every_s: float,
        before_each: Callable[[int], None],
    ) -> None:
        self.swaps: list[Swap] = []
        self.looks: list[Look] = []
        self._made, self._worker = made, worker
        self._waiting = list(releases)
        self._every_s = every_s
        self._before_each = before_each
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._rebuilt_before: dict[str, float] = {}

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        next_s = time.time() + self._every_s
        while not self._over.wait(POLL_S):
            samples = self._worker.metrics(*WATCHED)
            now_s = time.time()
            self.looks.append(Look(now_s, samples, stolen_s()))
            swap = self.swaps[-1] if self.swaps else None
            if swap is not None and swap.rebuilt_s is None:
                self._follow(swap, samples, now_s)
            if self._waiting and now_s >= next_s and (swap is None or swap.rebuilt_s is not None):
                self._before_each(len(self.swaps))
                self._rebuilt_before = _rebuilt(samples)
                release_id = self._waiting.pop(0)
                self.swaps.append(Swap(release_id, self._made.announce(release_id)))
                next_s += self._every_s

    def _follow(self, swap: Swap, samples: Mapping[str, float], now_s: float) -> None:
        info = f'driftline_serving_release_info{{release_id="{swap.release_id}"}}'
        if swap.flipped_s is None:
            if info in samples:
                swap.flipped_s = now_s
            return
        # The gauge rises just after the flip is told, so it is believed from the next look on.
        stale = samples.get("driftline_profiles_stale", float("inf"))
        held = sum(v for name, v in samples.items() if name.startswith("driftline_profiles{"))
        if swap.mostly_s is None and stale <= MOST * held:
            swap.mostly_s = now_s
        if not stale:
            swap.rebuilt_s = now_s
            swap.by_path = {
                path: count - self._rebuilt_before.get(path, 0.0)
                for path, count in _rebuilt(samples).items()
            }

    def lag_around(self, swap: Swap) -> Result:
        """How late the event loop woke between the notice and the last rebuilt profile."""
        during = self._looks_at(swap)
        if len(during) < 2:
            return {}
        lag = loop_lag(during[0].samples, during[-1].samples)
        return {"mean_ms": lag["mean_ms"], "worst_at_most_s": lag["worst_at_most_s"]}

    def stolen_ms(self, swap: Swap) -> float:
        """What the machine's host took away in the same time, of all cores together."""
        during = self._looks_at(swap)
        return round(1000.0 * (during[-1].stolen_s - during[0].stolen_s), 1) if during else 0.0

    def _looks_at(self, swap: Swap) -> list[Look]:
        end_s = swap.rebuilt_s or self.looks[-1].at_s
        return [x for x in self.looks if swap.announced_s - POLL_S <= x.at_s <= end_s]


def _rebuilt(samples: Mapping[str, float]) -> dict[str, float]:
    return {
        path: samples.get(f'driftline_profiles_rebuilt_total{{path="{path}"}}', 0.0)
        for path in ("touch", "sweep")
    }


def loop_lag(before: Mapping[str, float], after: Mapping[str, float]) -> Result:
    """How late the loop woke, as buckets: how many within each bound, and the worst bound hit."""
    counts = _buckets(LAG, "", before, after)
    looks = counts.get("+Inf", 0.0)
    seconds = after.get(f"{LAG}_sum", 0.0) - before.get(f"{LAG}_sum", 0.0)
    return {
        "looks": looks,
        "mean_ms": round(1000.0 * seconds / max(looks, 1.0), 3),
        "worst_at_most_s": _worst(counts),
        "cumulative": counts,
    }


def swap_phases(before: Mapping[str, float], after: Mapping[str, float]) -> Result:
    """Mean seconds of each phase of a swap, and the bound within which all of them lay."""
    stem = "driftline_swap_seconds"
    found: Result = {}
    for phase in ("fetch", "verify", "load", "flip"):
        label = f'{{phase="{phase}"}}'
        count = _grown(f"{stem}_count{label}", before, after)
        if count:
            buckets = _buckets(stem, f',phase="{phase}"', before, after)
            found[phase] = {
                "mean_s": round(_grown(f"{stem}_sum{label}", before, after) / count, 5),
                "worst_at_most_s": _worst(buckets),
            }
    return found


def _grown(name: str, before: Mapping[str, float], after: Mapping[str, float]) -> float:
    return after.get(name, 0.0) - before.get(name, 0.0)


def _buckets(
    stem: str, labels: str, before: Mapping[str, float], after: Mapping[str, float]
) -> dict[str, float]:
    """Cumulative counts by upper bound."""
    start, end = f'{stem}_bucket{{le="', f'"{labels}}}'
    return {
        name[len(start) : -len(end)]: _grown(name, before, after)
        for name in after
        if name.startswith(start) and name.endswith(end)
    }


def _worst(counts: Mapping[str, float]) -> str:
    most = counts.get("+Inf", 0.0)
    within = [bound for bound, count in counts.items() if count >= most]
    return min(within, key=float) if within else "unknown"
