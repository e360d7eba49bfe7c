"""Plots of results, written as PNG beside the JSON: one look per kind of figure.

Colours are those of Okabe & Ito (2008), which colour-blind readers can tell apart.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.harness import RESULTS, say
from benchmarks.offline.figures import Interval

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")


@contextlib.contextmanager
def figure(name: str, title: str, *, columns: int = 1, rows: int = 1) -> Iterator[Any]:
    """A list of axes to draw on, row by row; saved as results/<name>.png.

    Yields Any: matplotlib's axes come typed for every backend at once.
    """
    import matplotlib

    matplotlib.use("Agg")  # no display is needed, and none may be there
    from matplotlib import pyplot

    made, axes = pyplot.subplots(
        rows, columns, figsize=(6.4 * columns, 4.2 * rows), layout="constrained", squeeze=False
    )
    try:
        for one in axes.flat:
            one.set_prop_cycle(color=COLOURS)
            one.grid(alpha=0.3)
            one.spines[["top", "right"]].set_visible(False)
        made.suptitle(title, fontsize=12)
        yield list(axes.flat)
        RESULTS.mkdir(parents=True, exist_ok=True)
        made.savefig(RESULTS / f"{name}.png", dpi=110)
        say(f"plot: {name}.png")
    finally:
        pyplot.close(made)


def rounded(value: float) -> str:
    """Three figures, for people.

    >>> rounded(34_209.2), rounded(0.9412), rounded(213.4)
    ('34,200', '0.941', '213')
    """
    return f"{float(f'{value:.3g}'):,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def bars(axes: Any, values: Mapping[str, float], unit: str, bar: float | None = None) -> None:
    """Horizontal bars with their values written beside them; `bar` draws a line to reach."""
    names, widths = list(values), list(values.values())
    drawn = axes.barh(names, widths, color=[COLOURS[at % len(COLOURS)] for at in range(len(names))])
    axes.bar_label(drawn, fmt=rounded, padding=3)
    axes.set_xlabel(unit)
    axes.invert_yaxis()
    if bar is not None:
        axes.axvline(bar, color="black", linestyle="--", linewidth=1, label=f"bar {bar:g}")
        axes.legend()


def grouped(
    axes: Any, groups: Sequence[str], series: Mapping[str, Sequence[float]], unit: str
) -> None:
    """Vertical bars in groups, one colour per series."""
    width = 0.8 / max(len(series), 1)
    for at, (name, heights) in enumerate(series.items()):
        places = [group + (at - (len(series) - 1) / 2) * width for group in range(len(groups))]
        axes.bar(places, heights, width, label=name)
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylabel(unit)
    axes.legend()


def with_intervals(
    axes: Any, title: str, found: Mapping[str, Interval], unit: str, line: float | None = None
) -> None:
    """Horizontal points with their intervals, first on top; `line` marks a value."""
    finite = {name: one for name, one in found.items() if np.isfinite([one.mean, one.high]).all()}
    means = np.array([one.mean for one in finite.values()])
    spread = [[one.mean - one.low, one.high - one.mean] for one in finite.values()]
    axes.errorbar(means, list(finite), xerr=np.array(spread).T.reshape(2, -1), fmt="o", capsize=3)
    axes.set_title(title)
    axes.set_xlabel(unit)
    axes.invert_yaxis()
    if line is not None:
        axes.axvline(line, color="black", linestyle="--", linewidth=1)
