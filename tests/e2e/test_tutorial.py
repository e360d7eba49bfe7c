"""The tutorial, run: every block of docs/tutorial.md, in its order, on a Kafka of its own.

A comment before a block says what the block is: `<!-- run -->` a shell command that must end with
0, `<!-- background: until "text" -->` a process that goes on, `<!-- file: name -->` a file to save,
and `<!-- not run: why -->`.  A `text` block after a command is what it prints, where figures may be
others and `...` stands for anything.  Only the ports are exchanged for free ones.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deployment import wait_until

pytestmark = pytest.mark.e2e

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(
    r"(?:^<!-- (?P<what>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)
PORTS = ("9092", "9100", "9101", "8080")
RUN_WITHIN_S = 400
STOP_WITHIN_S = 40


@dataclass(frozen=True)
class Block:
    what: str
    text: str
    prints: str = ""


def blocks(page: str) -> Iterator[Block]:
    """The blocks, each command with what it prints."""
    found = list(BLOCK.finditer(page))
    for match, after in zip(found, [*found[1:], None], strict=True):
        if match["language"] == "text":
            continue
        assert match["what"], f"nothing says what to do with {match['text']!r}"
        shown = after["text"] if after is not None and after["language"] == "text" else ""
        yield Block(match["what"], match["text"], shown)


def looks_like(expected: str, said: str) -> bool:
    """Whether each line that is expected is among those that were said, in order.

    >>> looks_like("sent 5 in 0.1 s", "noise\\nsent 12 in 3 s"), looks_like("a ... c", "a c")
    (True, False)
    """
    patterns = []
    for line in expected.strip().splitlines():
        escaped = re.escape(line).replace(re.escape("..."), ".*")
        patterns.append(re.sub(r"\d+(\\\.\d+)?", r"[\\d.,]+", escaped))
    return re.search(r"^[\s\S]*?" + r"$[\s\S]*?^".join(patterns) + "$", said, re.M) is not None


class Reader:
    """Somebody who does what the page says, in a folder, each process in a terminal of its own."""

    def __init__(self, folder: Path, ports: dict[str, str]) -> None:
        self.folder = folder
        self.ports = ports
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # A busy machine leaves the learner no core to be idle on.
        own = {"DRIFTLINE_LEARNER__SCHEDULING": "normal", "PYTHONUNBUFFERED": "1"}
        self.environment = {**os.environ, **own, "PATH": path}
        self.started: list[tuple[subprocess.Popen[bytes], Path]] = []

    def do(self, block: Block) -> None:
        """One block.  What is wrong is told with the block and what was said."""
        what, _, more = block.what.partition(": ")
        text = re.sub("|".join(PORTS), lambda found: self.ports[found.group()], block.text)
        if what == "file":
            (self.folder / more).write_text(text)
        elif what == "background":
            self._start(text, more.removeprefix("until ").strip('"'))
        elif what == "run":
            self._run(text, block.prints)
        else:
            assert what == "not run", block.what

    def _run(self, text: str, prints: str) -> None:
        for name, value in re.findall(r"^export (\w+)=(\S+)$", text, re.M):
            self.environment[name] = value
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            check=False,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=RUN_WITHIN_S,
            text=True,
        )
        assert done.returncode == 0, f"{text}ended with {done.returncode}:\n{done.stdout}"
        assert looks_like(prints, done.stdout), f"{text}printed\n{done.stdout}\nnot\n{prints}"

    def _start(self, text: str, until: str) -> None:
        log = self.folder / f"terminal-{len(self.started)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {text}"],
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=output,
            )
        self.started.append((process, log))
        wait_until(f"{text.strip()} says {until!r}", lambda: until in log.read_text())

    def stop(self) -> list[int]:
        """Ctrl-C in each terminal, the last one first; how each ended."""
        codes = []
        for process, _ in reversed(self.started):
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_WITHIN_S)
            process.kill()
            codes.append(process.wait())
        return codes


@pytest.mark.timeout(1200)
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in PORTS]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        numbers = [str(each.getsockname()[1]) for each in sockets]
    reader = Reader(tmp_path, dict(zip(PORTS, numbers, strict=True)))
    try:
        for block in blocks(PAGE.read_text()):
            reader.do(block)
        assert set(reader.stop()) == {0}, "each ends in good order"
    finally:
        reader.stop()
        for process, log in reader.started:
            print(process.args, log.read_text()[-2000:], sep="\n")
