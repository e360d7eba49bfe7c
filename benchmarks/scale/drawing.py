"""The plots of bench-scale: sizes and costs on logarithmic axes, with the fitted exponents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.harness import Result
from benchmarks.plots import figure


def draw(name: str, parts: Result) -> None:
    """Write <name>-*.png for the parts that there are."""
    if "items" in parts:
        _items(f"{name}-items", parts["items"]["kinds"])
    if {"users", "history"} <= parts.keys():
        _profiles(f"{name}-profiles", parts["users"], parts["history"])
    if {"restore", "memory"} <= parts.keys():
        _recovery(f"{name}-recovery", parts["restore"], parts["memory"])


# Any: matplotlib's axes come typed for every backend at once.
def _line(axes: Any, rows: Sequence[Result], x: str, y: str, label: str, style: str = "o-") -> None:
    axes.plot([row[x] for row in rows], [row[y] for row in rows], style, label=label)


def _logarithmic(axes: Any, x: str, y: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.legend(fontsize=8)


def _items(name: str, kinds: Result) -> None:
    with figure(name, "Ranking against the catalogue (synthetic vectors)", columns=2) as axes:
        for kind, found in kinds.items():
            rows = found["sizes"]
            style = "o-" if kind == "clustered" else "s--"
            exact, cells = found["exponent_exact"], found["exponent_cells"]
            _line(axes[0], rows, "items", "exact_ms", f"exact, {kind}: N^{exact}", style)
            _line(axes[0], rows, "items", "cells_ms", f"cells, {kind}: N^{cells}", style)
            _line(axes[1], rows, "items", "recall_at_10", f"{kind}", style)
        _logarithmic(axes[0], "items", "ms per user (batch of 64)")
        axes[1].axhline(0.98, color="black", linestyle=":", label="bar 0.98")
        axes[1].set_xscale("log")
        axes[1].set_ylim(0.9, 1.005)
        axes[1].set_xlabel("items")
        axes[1].set_ylabel("recall@10 of cells against exact")
        axes[1].legend(fontsize=8)


def _profiles(name: str, users: Result, history: Result) -> None:
    with figure(name, "Profiles (synthetic)", columns=3) as axes:
        _line(axes[0], users["sizes"], "users", "event_us", f"U^{users['exponent_event']}")
        _logarithmic(axes[0], "users in the store", "µs per event, without the broker")
        axes[0].set_ylim(1, 1000)
        _line(axes[1], users["sizes"], "users", "disk_bytes_per_user", "typical histories")
        axes[1].axhline(2048, color="black", linestyle=":", label="bar 2 KB")
        axes[1].set_xscale("log")
        axes[1].set_ylim(0, 2300)
        axes[1].set_xlabel("users in the store")
        axes[1].set_ylabel("bytes on disk per user")
        axes[1].legend(fontsize=8)
        slope = history["exponent_rebuild"]
        _line(axes[2], history["sizes"], "history", "rebuild_us", f"rebuild, µs: H^{slope}")
        slope = history["exponent_disk"]
        rows = history["sizes"]
        _line(axes[2], rows, "history", "disk_bytes_per_user", f"disk, bytes: H^{slope}")
        _logarithmic(axes[2], "events of history, all filled", "per user")


def _recovery(name: str, restore: Result, memory: Result) -> None:
    with figure(name, "Restore and learner memory (synthetic)", columns=2) as axes:
        _line(axes[0], restore["sizes"], "profiles", "seconds", f"P^{restore['exponent']}")
        axes[0].plot([1e4, 1e5], [3, 30], ":", color="black", label="bar 30 s per 100k")
        _logarithmic(axes[0], "profiles in the changelog", "seconds to restore")
        rows = [{**row, "mib": row["buffer_bytes"] / 2**20} for row in memory["sizes"]]
        held, planning = memory["exponent_held"], memory["exponent_planning"]
        _line(axes[1], rows, "mib", "held_mib", f"buffer open: B^{held}")
        _line(axes[1], rows, "mib", "planning_mib", f"planning a round: B^{planning}")
        _logarithmic(axes[1], "MiB of replay buffer", "MiB of memory above the interpreter")
