"""Pictures of the continual benchmark: quality block by block against its price, and every R."""

from __future__ import annotations

import numpy as np

from benchmarks.harness import Result
from benchmarks.plots import figure


def plot_quality(found: Result, name: str, title: str) -> None:
    """Left: prequential NDCG@10 of each block, less the frozen base's.  Right: the mean of blocks
    2 to B, with its interval, against the examples that a round processes."""
    strategies = found["strategies"]
    blocks = [slice_name for slice_name in found["events"] if slice_name.startswith("block_")]
    first = next(iter(strategies.values()))
    base = np.array([first[block]["ndcg10"]["mean"] for block in blocks])
    with figure(name, title, columns=2) as (left, right):
        for strategy, of in strategies.items():
            means = np.array([of[block]["ndcg10"]["mean"] for block in blocks])
            left.plot(np.arange(1, len(blocks) + 1), means - base, marker="o", label=strategy)
            point = of["later"]["ndcg10"]
            below, above = point["mean"] - point["low"], point["high"] - point["mean"]
            right.errorbar(
                of["examples_mean"] / 1000, point["mean"], yerr=[[below], [above]],
                fmt="o", capsize=3, label=strategy,
            )  # fmt: skip
        left.set_xlabel("block")
        left.set_ylabel(f"NDCG@10 above {next(iter(strategies))}")
        left.legend(fontsize=8)
        right.set_xscale("symlog", linthresh=1.0)
        right.set_xlabel("thousand examples in a round")
        right.set_ylabel("NDCG@10, blocks 2 on (95% by user)")


def plot_matrices(found: Result, name: str, title: str) -> None:
    """R of each strategy, less the base release's figure of the same period: red is better."""
    changes = {}
    for strategy, of in found["strategies"].items():
        matrix = np.array(of["matrix"])
        changes[strategy] = matrix - matrix[0]
    most = max(float(np.abs(change).max()) for change in changes.values()) or 1.0
    columns = min(len(changes), 4)
    with figure(name, title, columns=columns, rows=-(-len(changes) // columns)) as axes:
        for unused in axes[len(changes) :]:
            unused.axis("off")
        for axis, (strategy, change) in zip(axes, changes.items(), strict=False):
            shown = axis.imshow(change, cmap="RdBu_r", vmin=-most, vmax=most)
            axis.grid(visible=False)
            axis.set_title(strategy)
            axis.set_xlabel("held events of period j")
        for axis in axes[::columns]:
            axis.set_ylabel("after block i")
        axes[-1].figure.colorbar(shown, ax=axes, label="R[i][j] - R[0][j]", shrink=0.8)
