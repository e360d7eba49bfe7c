"""Looks up known vulnerabilities of every locked dependency: `make check` runs it by pip-audit.

    python -m tests.dependency_audit

What surprised us: offline, and on a package mirror that carries files but no vulnerability data,
pip-audit says "No known vulnerabilities found" and exits 0, having looked up nothing.  So its JSON
is read here: a finding ends with 1 wherever the data can be reached; where it cannot, that is said
loudly and last, and the check passes, since a machine without a network must be able to run it.
`--strict` fails then, too, for whoever releases.  We know no offline way: of what the package index
carries, safety-db ends in 2021, and the others ask the network.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-data.lock", "requirements-tools.lock")
ACCEPTED: dict[str, str] = {}
"""Vulnerability id -> why it does not concern us."""


class Vulnerability(msgspec.Struct):
    id: str
    fix_versions: list[str] = []


class Dependency(msgspec.Struct):
    """`skip_reason`: why nothing is known about it, where nothing is."""

    name: str
    version: str = ""
    vulns: list[Vulnerability] = []
    skip_reason: str = ""


class Report(msgspec.Struct):
    dependencies: list[Dependency]


def look_up(lock: Path) -> Report:
    """What pip-audit knows; an empty report when it could not ask at all."""
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "report.json"
        subprocess.run(
            [
                sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes",
                "--requirement", str(lock), "--format", "json", "--output", str(output),
                "--progress-spinner", "off", "--timeout", "10",
            ],
            stderr=subprocess.DEVNULL,
            check=False,
        )  # fmt: skip
        if not output.exists():
            return Report([])
        return msgspec.json.decode(output.read_bytes(), type=Report)


def verdict(reports: dict[str, Report], *, strict: bool) -> tuple[int, list[str]]:
    """Exit code, and what to tell.

    >>> found = Dependency("lib", "1.0", [Vulnerability("CVE-1", ["1.1"])])
    >>> verdict({"a.lock": Report([found])}, strict=False)
    (1, ['a.lock: lib 1.0 has CVE-1; fixed in 1.1', 'looked up 1 of 1 dependencies'])
    >>> unknown = Report([Dependency("lib", skip_reason="not found")])
    >>> verdict({"a.lock": unknown}, strict=False)[0], verdict({"a.lock": unknown}, strict=True)[0]
    (0, 1)
    """
    told: list[str] = []
    looked_up = total = 0
    for lock, report in reports.items():
        total += len(report.dependencies)
        for each in report.dependencies:
            looked_up += not each.skip_reason
            told += [
                f"{lock}: {each.name} {each.version} has {found.id}; fixed in "
                f"{', '.join(found.fix_versions) or 'no version yet'}"
                for found in each.vulns
                if found.id not in ACCEPTED
            ]
    code = 1 if told else 0
    told.append(f"looked up {looked_up} of {total} dependencies")
    if looked_up < total or not total:
        told.append(
            f"!!! {total - looked_up} OF {total} DEPENDENCIES NOT AUDITED: the vulnerability "
            "service cannot be reached from here, or the package index carries no such data. "
            "This is no clean bill: run `python -m tests.dependency_audit --strict` where it can "
            "be reached, and before every release !!!"
        )
        code = 1 if strict else code
    return code, told


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.dependency_audit")
    parser.add_argument("--strict", action="store_true", help="fail where nothing can be looked up")
    strict = parser.parse_args().strict
    code, told = verdict({lock: look_up(ROOT / lock) for lock in LOCKS}, strict=strict)
    for line in told:
        print(f"dependency audit: {line}")
    return code


if __name__ == "__main__":
    sys.exit(main())
