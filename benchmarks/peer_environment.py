"""An environment that peers live in, apart from ours, made on demand by the same uv.

Each has its folder in the repository and its list of locked versions.  A peer that cannot be
installed or imported is reported with the reason, and the rest goes on.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import ROOT, say

UV = ROOT / ".tools" / "bin" / "uv"
ASKED_FOR_END = "# with them"
"""What stands above this line of a list is asked for; what stands below comes with it."""


@dataclass(frozen=True, slots=True)
class PeerEnvironment:
    """`folder` below the repository's root; `requirements` below benchmarks/."""

    folder: str
    requirements: str

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return ROOT / self.folder / "bin" / "python"

    def prepare(self, needs: Mapping[str, str]) -> dict[str, str]:
        """Make the environment if it is missing or older than its list.

        `needs`: contender -> module that it imports.
        Returns: contenders that cannot run, each with the reason.
        """
        stamp = ROOT / self.folder / ".driftline-peers"
        if not stamp.exists() or stamp.read_text() != self._list().read_text():
            self._install()
            if self.python.exists():
                stamp.write_text(self._list().read_text())
        errors = {module: self._import_error(module) for module in set(needs.values())}
        return {
            name: f"`import {module}` failed: {errors[module]}"
            for name, module in needs.items()
            if errors[module]
        }

    def installed(self) -> list[str]:
        """What is in the environment, `name==version`."""
        done = _uv("pip", "freeze", "--python", str(self.python))
        return done.stdout.split() if done.returncode == 0 else []

    def has(self, program: str) -> Path | None:
        """A program of the environment, if it is there."""
        path = self.python.parent / program
        return path if path.exists() else None

    def _list(self) -> Path:
        return ROOT / "benchmarks" / self.requirements

    def _install(self) -> None:
        say(f"making {self.folder} from {self.requirements}")
        if not self.python.exists():
            base = subprocess.run(
                [ROOT / ".tools/bin/python", "-c", "import sys; print(sys._base_executable)"],
                capture_output=True,
                text=True,
                check=True,
            )
            _uv("venv", "--quiet", "--python", base.stdout.strip(), str(ROOT / self.folder))
        where = ("--python", str(self.python))
        install = ("pip", "install", "--quiet", "--only-binary", ":all:", *where)
        if _uv(*install, "-r", str(self._list())).returncode:
            # One that is missing must not cost us the others.
            for line in self._list().read_text().split(ASKED_FOR_END)[0].splitlines():
                if not line.startswith("#"):
                    done = _uv(*install, "--constraint", str(self._list()), line)
                    if done.returncode:
                        say(f"{line} cannot be installed: {done.stderr.strip()[-500:]}")

    def _import_error(self, module: str) -> str:
        if not self.python.exists():
            return f"{self.folder} could not be made"
        done = subprocess.run(
            [self.python, "-c", f"import {module}"], capture_output=True, text=True, check=False
        )
        return done.stderr.strip().rsplit("\n", 1)[-1] if done.returncode else ""


def _uv(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([UV, *command], cwd=ROOT, capture_output=True, text=True, check=False)


THROUGHPUT = PeerEnvironment(".venv-bench", "requirements-peers.txt")
QUALITY = PeerEnvironment(".venv-bench-quality", "requirements-quality-peers.txt")
