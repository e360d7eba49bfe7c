"""Training examples a second: our language steps against a plain PEFT + transformers Trainer loop.

Same model (all-MiniLM-L6-v2 with LoRA), data, batches, loss, optimiser and start weights, one
thread on one core (a GPU where there is one), interleaved in one process.  An example is one event
to be predicted (benchmarks/learning/task.py says of what the loss consists).

    ours              each distinct text once, no padding, bfloat16 where the CPU has it
    trainer           every event brings its text, padded to the longest, float32: the plain loop
    trainer_distinct  its collator sends each text of a batch once
    trainer_best      that, and Trainer's own bf16=True

That all learn the same is checked in the run: the losses of all steps, updates included, must
agree with the float32 loop's within `--tolerance`, or the run fails.  FLOP/s count what the linear
layers do for the tokens given to them, padding included, forward and back to the activations; the
ceiling is the best dense product on the same thread.

    make bench-learner [BENCH_ARGS="--windows 4 --steps 1 --repetitions 2"]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import Result, load_average, median_and_range, pinned, report, say
from benchmarks.learning.ours import our_steps
from benchmarks.learning.task import Task, make_task
from benchmarks.learning.timing import Steps
from benchmarks.learning.trainer_loop import trainer_steps
from benchmarks.matmul_ceiling import matmul_ceiling
from benchmarks.offline.interactions import load_interactions
from benchmarks.plots import bars, figure
from profiles.config import load_settings
from profiles.precision import is_bfloat16_fast

CORE = 1
OURS, PLAIN = "ours", "trainer"
CONTENDERS: Mapping[str, Callable[[Task, int], Steps]] = {
    OURS: our_steps,
    PLAIN: lambda task, steps: trainer_steps(task, steps, distinct=False, bfloat16=False),
    "trainer_distinct": lambda task, steps: trainer_steps(
        task, steps, distinct=True, bfloat16=False
    ),
    "trainer_best": lambda task, steps: trainer_steps(task, steps, distinct=True, bfloat16=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--dataset", default="movielens", help="as `driftline replay` names it")
    parser.add_argument("--path", type=Path, help="its folder or file; default: the bundled one")
    parser.add_argument("--windows", type=int, default=16, help="users' windows in a batch")
    parser.add_argument("--length", type=int, default=10, help="events in a window, at most")
    parser.add_argument("--steps", type=int, default=2, help="timed in each repetition")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--tolerance", type=float, default=5e-3, help="relative, of each loss")
    parser.add_argument("--smoke", action="store_true", help="the smallest run that says something")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--name", default="learner", help="of the result file")
    asked = parser.parse_args()
    if asked.smoke:
        asked.windows, asked.length, asked.steps, asked.repetitions = 4, 6, 1, 2
    started_load = load_average()
    torch.set_num_threads(1)
    with pinned(CORE):
        devices = {"cpu": _measure("cpu", asked)}
    if torch.cuda.is_available():
        devices["cuda"] = _measure("cuda", asked)
    say("no GPU here" if "cuda" not in devices else f"GPU: {torch.cuda.get_device_name()}")
    _plot(asked.name, devices["cpu"])
    report(
        asked.name,
        asked.seed,
        vars(asked),
        started_load,
        data=asked.dataset,
        threads=1,
        bfloat16=is_bfloat16_fast("cpu"),
        gpu=torch.cuda.get_device_name() if "cuda" in devices else "no GPU here",
        devices=devices,
    )


def _measure(device: str, asked: argparse.Namespace) -> Result:
    settings = load_settings(
        learner={
            "seed": asked.seed,
            "sequence_length": asked.length,
            "batch_users": asked.windows,
            "schedule": "constant",
            "clip_norm": 1e9,
            "dropout": 0.0,
        }
    )
    found = load_interactions(asked.dataset, asked.path)
    task = make_task(found, settings, asked.windows * (asked.steps + 1), device)
    runs: dict[str, list[Steps]] = {name: [] for name in CONTENDERS}
    for repetition in range(asked.repetitions):
        names = list(CONTENDERS)
        at = repetition % len(names)
        for name in names[at:] + names[:at]:
            runs[name].append(CONTENDERS[name](task, asked.steps))
            done = runs[name][-1]
            say(f"{device}, {name}: {done.examples / done.seconds:.1f} examples/s")
    rates = {name: [one.examples / one.seconds for one in some] for name, some in runs.items()}
    weights = _linear_weights(task)
    ceilings = {
        "float32": matmul_ceiling(device, torch.float32),
        "bfloat16": matmul_ceiling(device, torch.bfloat16),
    }
    reached = {
        name: float(np.median([4.0 * weights * one.tokens / one.seconds for one in some]))
        for name, some in runs.items()
    }
    batch = task.batch(0)
    return {
        "examples_per_step": runs[OURS][0].examples / asked.steps,
        "texts_per_step": len(task.rows_of(batch)),
        "distinct_texts_per_step": len(torch.unique(task.rows_of(batch))),
        "examples_per_s": {name: median_and_range(some) for name, some in rates.items()},
        "ratios": {
            name: median_and_range([a / b for a, b in zip(rates[OURS], some, strict=True)])
            for name, some in rates.items()
            if name != OURS
        },
        "losses": {name: some[0].losses for name, some in runs.items()},
        "largest_loss_difference": _check_losses(runs, asked.tolerance),
        "flop_per_s": reached,
        "ceiling_flop_per_s": ceilings,
        "share_of_ceiling": {
            name: round(flops / ceilings[_precision(name, device)], 3)
            for name, flops in reached.items()
        },
    }


def _precision(name: str, device: str) -> str:
    """In what the bulk of a contender's arithmetic runs."""
    halved = name == "trainer_best" or (name == OURS and is_bfloat16_fast(device))
    return "bfloat16" if halved else "float32"


def _check_losses(runs: Mapping[str, list[Steps]], tolerance: float) -> dict[str, float]:
    """Largest relative difference of any step's loss to the plain loop's.

    Raises: SystemExit when they did not learn the same.
    """
    plain = np.array(runs[PLAIN][0].losses)
    largest = {
        name: max(float(np.abs(np.array(one.losses) / plain - 1.0).max()) for one in some)
        for name, some in runs.items()
    }
    wrong = {name: found for name, found in largest.items() if not found <= tolerance}
    if wrong:
        raise SystemExit(f"losses differ by more than {tolerance}: {wrong}; nothing to compare")
    return largest


def _linear_weights(task: Task) -> int:
    """Weights of the base that every token is multiplied with; the adapter's are 1% of them."""
    layers = task.language.encoder.model.get_base_model().encoder.layer
    return sum(
        weight.numel()
        for name, weight in layers.named_parameters()
        if weight.ndim == 2 and "lora_" not in name
    )


def _plot(name: str, found: Result) -> None:
    rates = {who: one["median"] for who, one in found["examples_per_s"].items()}
    with figure(name, "Training examples per second, one CPU thread") as (axes,):
        bars(axes, rates, "examples/s")


if __name__ == "__main__":
    main()
