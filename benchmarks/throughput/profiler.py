"""Where a worker's time goes: py-spy's stacks, added up per function.

What surprised us: py-spy takes a thread for active that only waits for the core or the
interpreter lock.  The event loop so seemed to take 18 us of an event of which it took 5.  Hence
each thread's samples together count as much as the processor time that it used.
"""

from __future__ import annotations

import subprocess
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import say
from benchmarks.peer_environment import THROUGHPUT

TOP = 40
PARTS = {
    "decode": "decode_chunk ",
    "to_batch": "to_batch ",
    "prequential ranks": "unseen_ranks ",
    "model": "advance_all ",
    "apply_batch, rest": "apply_batch ",
    "choose": "choose ",
    "recommendations": "_recommend ",
    "store": "(profiles/store.py)",
    "record codec": "codec_records ",
    "state thread, rest": "apply (stream/event_path.py)",
    "publish, batches": "send (stream/publisher.py)",
    "publish, wire": "aiokafka/producer",
    "fetch, records": "getmany ",
    "fetch, wire": "aiokafka/",
}
"""Parts of the event path, by a function or file in their stacks; the first that fits counts."""
WAITS = ("select (selectors.py)", "wait (threading.py)", "_worker (futures/thread.py)",
         "wait (multiprocessing/connection.py)")  # fmt: skip
"""Functions that do nothing themselves: a stack that ends in one is a thread at rest."""


def start(pid: int, seconds: int, output: Path) -> subprocess.Popen[bytes] | None:
    """Sample a process in the background; None where there is no py-spy."""
    program = THROUGHPUT.has("py-spy")
    if program is None:
        say("py-spy is not installed: no profile")
        return None
    command = [str(program), "record", "-p", str(pid), "-d", str(seconds), "-r", "250"]
    return subprocess.Popen(
        [*command, "-f", "raw", "-t", "-o", str(output)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def top(output: Path, threads_s: Mapping[int, float]) -> dict[str, Any]:
    """Share of processor time per function: `self` where it ran itself, `total` with its callees.

    Args:
        threads_s: processor seconds of each thread, by its number; others are left out.
    """
    stacks: list[tuple[int, list[str], int]] = []
    samples: Counter[int] = Counter()
    for line in output.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [_short(frame) for frame in stack.split(";")]
        thread = int(stack.split("(", 1)[1].split(")", 1)[0])
        if thread in threads_s and not frames[-1].endswith(WAITS):
            stacks.append((thread, frames, int(count)))
            samples[thread] += int(count)
    everything_s = sum(threads_s[thread] for thread in samples) or 1.0
    own: defaultdict[str, float] = defaultdict(float)
    whole: defaultdict[str, float] = defaultdict(float)
    parts: defaultdict[str, float] = defaultdict(float)
    for thread, frames, taken in stacks:
        share = taken / samples[thread] * threads_s[thread] / everything_s
        parts[_part(frames)] += share
        own[frames[-1]] += share
        for frame in set(frames[1:]):
            whole[frame] += share
    return {
        "samples": sum(samples.values()),
        "parts": _rounded(parts),
        "self": _rounded(own),
        "total": _rounded(whole),
    }


def _rounded(shares: Mapping[str, float]) -> dict[str, float]:
    most = sorted(shares, key=lambda name: -shares[name])[:TOP]
    return {name: round(shares[name], 4) for name in most}


def _part(frames: list[str]) -> str:
    stack = ";".join(frames).replace("encode_records ", "codec_records ")
    stack = stack.replace("decode_records ", "codec_records ")
    return next((part for part, mark in PARTS.items() if mark in stack), "event loop and rest")


def _short(frame: str) -> str:
    """`name (path:line)` without the line, and with two parts of the path."""
    name, _, place = frame.rpartition(" (")
    if not name:
        return frame
    path = place.rstrip(")").rsplit(":", 1)[0]
    return f"{name} ({'/'.join(path.split('/')[-2:])})"
