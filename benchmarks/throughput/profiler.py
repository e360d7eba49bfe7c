"""Where a worker's time goes: py-spy's stacks, added up per function."""

from __future__ import annotations

import subprocess
from collections import Counter
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


def top(output: Path, share_of: int | None = None) -> dict[str, Any]:
    """Share of samples per function: `self` where it ran itself, `total` with what it called."""
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    threads: Counter[str] = Counter()
    parts: Counter[str] = Counter()
    for line in output.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [_short(frame) for frame in stack.split(";")]
        if frames[-1].endswith(WAITS):
            continue
        samples = int(count)
        threads[frames[0]] += samples
        parts[_part(frames)] += samples
        own[frames[-1]] += samples
        for frame in set(frames[1:]):
            whole[frame] += samples
    everything = share_of or sum(threads.values()) or 1

    def shares(counted: Counter[str]) -> dict[str, float]:
        return {name: round(n / everything, 4) for name, n in counted.most_common(TOP)}

    return {
        "samples": everything,
        "threads": shares(threads),
        "parts": shares(parts),
        "self": shares(own),
        "total": shares(whole),
    }


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
