"""How the running demo looks: a live picture on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live as LiveDisplay
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from stream.demo.scrape import Snapshot
from stream.demo.watching import Shown

LINE_EVERY_S = 10.0
RATE_OVER_S = 5.0


@dataclass(frozen=True, slots=True)
class Picture:
    """What is shown: one moment of the demo.  `rate` is events applied per second."""

    phase: str
    seconds: float
    sent: int
    total: int
    lag: int
    rate: float
    snapshot: Snapshot
    shown: Sequence[Shown] = ()


class View(Protocol):
    """Something that shows pictures."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def show(self, picture: Picture) -> None:
        """The present moment."""

    def close(self) -> None:
        """No more pictures; `say` still works."""


@dataclass(slots=True)
class Speed:
    """Events per second over the last few seconds."""

    _seen: deque[tuple[float, float]] = field(default_factory=deque)

    def at(self, now_s: float, count: float) -> float:
        """Take a count in; returns the rate.

        >>> speed = Speed()
        >>> speed.at(0.0, 0), speed.at(2.0, 100)
        (0.0, 50.0)
        """
        self._seen.append((now_s, count))
        while now_s - self._seen[0][0] > RATE_OVER_S:
            self._seen.popleft()
        began_s, first = self._seen[0]
        return (count - first) / (now_s - began_s) if now_s > began_s else 0.0


class Lines:
    """Plain lines on stderr, for logs and pipes."""

    def __init__(self) -> None:
        self._last_s = -LINE_EVERY_S

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def show(self, picture: Picture) -> None:
        now_s = time.monotonic()
        if now_s - self._last_s >= LINE_EVERY_S:
            self._last_s = now_s
            self.say(_line(picture))

    def close(self) -> None:
        return None


class Screen:
    """A picture that is redrawn in place, on stderr: stdout stays for the summary."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = LiveDisplay(console=self._console, auto_refresh=False, transient=True)
        self._live.start()

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False)

    def show(self, picture: Picture) -> None:
        self._live.update(_drawing(picture), refresh=True)

    def close(self) -> None:
        self._live.stop()


def _line(picture: Picture) -> str:
    now = picture.snapshot
    quality = " ".join(f"{_short(n)} {live.hr10:.3f}" for n, live in now.quality.items())
    return (
        f"[{picture.seconds:4.0f} s] {picture.phase}: {picture.sent:,}/{picture.total:,} events, "
        f"{picture.rate:.0f}/s, lag {picture.lag}, {now.profiles:.0f} profiles, "
        f"{now.recommendations:,.0f} recommendations, swaps "
        f"{'/'.join(map(str, now.swaps.values())) or '-'}, {_learning(now)}"
        f"{', live HR@10 ' + quality if quality else ''}"
    )


def _learning(now: Snapshot) -> str:
    told = ", ".join(f"{count} {outcome}" for outcome, count in now.rounds.items() if count)
    return f"learner {'training' if now.is_learning else 'listening'}" + (
        f" ({told})" if told else ""
    )


def _short(release_id: str) -> str:
    """The readable part of a release's name.

    >>> _short("r00002-0123456789abcdef")
    'r00002'
    """
    return release_id.partition("-")[0]


def _drawing(picture: Picture) -> Group:
    now = picture.snapshot
    head = Text.assemble(
        (f" {picture.phase} ", "bold"),
        f"  {picture.sent:,} of {picture.total:,} events   {picture.rate:,.0f}/s   "
        f"lag {picture.lag:,}   {now.profiles:,.0f} profiles   "
        f"{now.recommendations:,.0f} recommendations   {now.dead:.0f} dead letters   "
        f"{picture.seconds:.0f} s",
    )
    workers = Table("worker", "serving release", "swaps", box=None, padding=(0, 2, 0, 0))
    for name, swaps in now.swaps.items():
        workers.add_row(name, now.serving.get(name, "-"), str(swaps))
    releases = Table("release", "events", "HR@10", "NDCG@10", box=None, padding=(0, 2, 0, 0))
    for name, live in now.quality.items():
        releases.add_row(
            _short(name), f"{live.events:,.0f}", f"{live.hr10:.3f}", f"{live.ndcg10:.3f}"
        )
    users = Table("user", "liked", "is recommended", "because of", box=None, padding=(0, 2, 0, 0))
    for shown in picture.shown:
        users.add_row(
            shown.user, "\n".join(shown.liked), "\n".join(shown.titles), "\n".join(shown.because)
        )
    return Group(
        Panel(head, title="driftline"),
        Panel(workers, title="stream", title_align="left"),
        Panel(
            releases,
            title=f"ranked before applied, by release: {_learning(now)}",
            title_align="left",
        ),
        Panel(users, title="just now", title_align="left"),
    )
