"""The environment that the peers live in: .venv-bench, made by the same uv as ours.

A peer that cannot be installed or imported is reported with the reason, and the rest goes on.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.harness import ROOT, say
from benchmarks.throughput.contenders import NEEDS

UV = ROOT / ".tools" / "bin" / "uv"
VENV = ROOT / ".venv-bench"
PYTHON = VENV / "bin" / "python"
REQUIREMENTS = ROOT / "benchmarks" / "requirements-peers.txt"
STAMP = VENV / ".driftline-peers"


def prepare() -> dict[str, str]:
    """Make the environment if it is missing or older than its list.

    Returns: contenders that cannot run, each with the reason.
    """
    if not STAMP.exists() or STAMP.read_text() != REQUIREMENTS.read_text():
        _install()
    return {
        name: f"`import {module}` failed: {error}"
        for name, module in NEEDS.items()
        if (error := _import_error(module))
    }


def installed() -> list[str]:
    """What is in the environment, `name==version`."""
    done = _uv("pip", "freeze", "--python", str(PYTHON))
    return done.stdout.split() if done.returncode == 0 else []


def has(program: str) -> Path | None:
    """A program of the environment, if it is there."""
    path = VENV / "bin" / program
    return path if path.exists() else None


def _install() -> None:
    say(f"making {VENV.name} from {REQUIREMENTS.name}")
    if not PYTHON.exists():
        base = subprocess.run(
            [ROOT / ".tools/bin/python", "-c", "import sys; print(sys._base_executable)"],
            capture_output=True,
            text=True,
            check=True,
        )
        _uv("venv", "--quiet", "--python", base.stdout.strip(), str(VENV))
    install = ("pip", "install", "--quiet", "--only-binary", ":all:", "--python", str(PYTHON))
    if _uv(*install, "-r", str(REQUIREMENTS)).returncode:
        # One that is missing must not cost us the others.
        for line in REQUIREMENTS.read_text().split("# with them")[0].splitlines():
            if not line.startswith("#"):
                done = _uv(*install, "--constraint", str(REQUIREMENTS), line)
                if done.returncode:
                    say(f"{line} cannot be installed: {done.stderr.strip()[-500:]}")
    if PYTHON.exists():
        STAMP.write_text(REQUIREMENTS.read_text())


def _uv(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([UV, *command], cwd=ROOT, capture_output=True, text=True, check=False)


def _import_error(module: str) -> str:
    if not PYTHON.exists():
        return f"{VENV.name} could not be made"
    done = subprocess.run(
        [PYTHON, "-c", f"import {module}"], capture_output=True, text=True, check=False
    )
    return done.stderr.strip().rsplit("\n", 1)[-1] if done.returncode else ""
