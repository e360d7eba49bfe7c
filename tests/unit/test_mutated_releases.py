"""Hundreds of releases that are wrong in one way each, announced to a worker that trusts one key.

They go the whole way: notice, store, hashes, signature, tensors, probe.  None may serve, none may
raise, each is counted under its reason, and the release that served before serves on.  Most are
generated: every file truncated, flipped, missing, replaced; every array not finite or huge, in a
release that is sealed and signed anew with the trusted key, as a faulty trainer would leave it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from profiles.manifest import Manifest, read_manifest, write_manifest
from profiles.release import FILES
from profiles.signing import create_key, load_trusted, sign
from tests.faults.record import Record
from tests.unit.builders import make_items, save_release
from tests.unit.test_release import (
    ADAPTER,
    CONFIG,
    HEAD,
    ITEMS,
    MUTATIONS,
    PROBE,
    Exploit,
    Mutation,
    link,
    reseal,
)
from tests.unit.test_release_feed import Bench

pytestmark = pytest.mark.unit

ALL_FILES = (*FILES, "manifest.json")
TENSORS = (HEAD, ITEMS, PROBE, ADAPTER)
SIGNED_PLACES = ("lora_rank", "base_sha256", "files", "probe_texts", "created_at")


@dataclass(frozen=True, slots=True)
class Keys:
    """The key that workers trust, and somebody else's."""

    trusted: Path
    stranger: Path


@dataclass(frozen=True, slots=True)
class Wrong:
    """One way to be wrong.  `is_sealed`: hashes, name and trusted signature are made to fit."""

    name: str
    mutate: Mutation
    is_sealed: bool = False


def edited(name: str, change: Callable[[bytearray], object]) -> Mutation:
    """The bytes of a file, changed."""

    def mutate(directory: Path) -> None:
        payload = bytearray((directory / name).read_bytes())
        change(payload)
        (directory / name).write_bytes(payload)

    return mutate


def flipped(name: str, place: float, bit: int) -> Mutation:
    def change(payload: bytearray) -> None:
        payload[int(place * len(payload))] ^= 1 << bit

    return edited(name, change)


def cut(name: str, part: float) -> Mutation:
    return lambda directory: os.truncate(
        directory / name, int(part * (directory / name).stat().st_size)
    )


def to_directory(name: str) -> Mutation:
    def mutate(directory: Path) -> None:
        (directory / name).unlink()
        (directory / name).mkdir()

    return mutate


def with_last(name: str, tensor: str, value: float) -> Mutation:
    """One number of one array is another."""

    def mutate(directory: Path) -> None:
        tensors = load_file(directory / name)
        changed = tensors[tensor].copy()
        changed.flat[-1] = value
        save_file({**tensors, tensor: changed}, directory / name)

    return mutate


def in_other_shape(name: str, tensor: str) -> Mutation:
    def mutate(directory: Path) -> None:
        tensors = load_file(directory / name)
        save_file({**tensors, tensor: tensors[tensor][None]}, directory / name)

    return mutate


def damaged_files() -> Iterator[Wrong]:
    """What lies there is not what was made."""
    for name in ALL_FILES:
        for part in (0.0, 0.01, 0.25, 0.5, 0.99):
            yield Wrong(f"{name} cut at {part}", cut(name, part))
        yield Wrong(f"{name} longer", edited(name, lambda payload: payload.extend(b"\x00")))
        yield Wrong(f"{name} missing", lambda d, name=name: (d / name).unlink())  # type: ignore[misc]  # bound here
        yield Wrong(f"{name} a link", link(name))
        yield Wrong(f"{name} a directory", to_directory(name))
        pickled = pickle.dumps(Exploit())
        yield Wrong(f"{name} a pickle", lambda d, n=name, p=pickled: (d / n).write_bytes(p))  # type: ignore[misc]
    for name in FILES:
        for eighth in range(8):
            yield Wrong(f"{name} flipped at {eighth}/8", flipped(name, eighth / 8, eighth))
    for field in SIGNED_PLACES:
        yield Wrong(f"manifest edited at {field}", altered(field))


def altered(field: str) -> Mutation:
    """Something that the name hashes, changed by hand."""

    def mutate(directory: Path) -> None:
        path = directory / "manifest.json"
        content = msgspec.json.decode(path.read_bytes())
        old = content[field]
        content[field] = old + 1 if isinstance(old, int | float) else type(old)()
        path.write_bytes(msgspec.json.encode(content))

    return mutate


def bad_numbers(directory: Path) -> Iterator[Wrong]:
    """Every array of floats, not finite or far too large, sealed and signed."""
    for file in TENSORS:
        for tensor, array in load_file(directory / file).items():
            if array.dtype != np.float32:
                continue
            for value in (np.nan, np.inf, -np.inf, 1e30):
                if tensor == "counts" and value == 1e30:
                    continue  # many events are no fault
                yield Wrong(f"{file} {tensor} {value}", with_last(file, tensor, value), True)
            if file != ADAPTER:  # whether it fits the base, the language model says
                yield Wrong(f"{file} {tensor} deeper", in_other_shape(file, tensor), True)
        yield Wrong(f"{file} a pickle, sealed", edited(file, _to_pickle), True)
    yield Wrong("adapter config a pickle, sealed", edited(CONFIG, _to_pickle), True)


def _to_pickle(payload: bytearray) -> None:
    payload[:] = pickle.dumps(Exploit())


def bad_signatures(keys: Keys) -> Iterator[Wrong]:
    """Whole and well, but nobody we trust says so."""

    def signed(change: Callable[[Manifest], str]) -> Mutation:
        def mutate(directory: Path) -> None:
            manifest = read_manifest(directory)
            write_manifest(directory, msgspec.structs.replace(manifest, signature=change(manifest)))

        return mutate

    def turned(manifest: Manifest, at: int) -> str:
        good = bytearray.fromhex(sign(manifest, keys.trusted).signature)
        good[at] ^= 1
        return good.hex()

    yield Wrong("unsigned", signed(lambda manifest: ""))
    yield Wrong("signed by a stranger", signed(lambda m: sign(m, keys.stranger).signature))
    yield Wrong("signature of nothing", signed(lambda m: "00" * 64))
    yield Wrong("signature cut", signed(lambda m: sign(m, keys.trusted).signature[:-2]))
    yield Wrong("signature no hex", signed(lambda m: "zz" * 64))
    for at in range(0, 64, 8):
        yield Wrong(f"signature flipped at {at}", signed(lambda m, at=at: turned(m, at)))  # type: ignore[misc]


BAD_NAMES = (
    "../releases",
    "..",
    ".",
    "/etc",
    "/etc/passwd",
    "r00001/../../etc",
    "%2e%2e%2fetc",
    "R00001",
    "r00001\x00",
    "r00001 ",
    "file:///etc",
    "ŕ00001",
    "r" * 256,
)


async def test_no_wrong_release_serves_and_each_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Record
) -> None:
    monkeypatch.chdir(tmp_path)
    keys = Keys(tmp_path / "trusted.pem", tmp_path / "stranger.pem")
    for private in (keys.trusted, keys.stranger):
        create_key(private, private.with_suffix(".pub"))
    bench = Bench(tmp_path, trusted=load_trusted([keys.trusted.with_suffix(".pub")]))
    original = tmp_path / "original"
    write_manifest(original, sign(save_release(original, make_items(6), 0), keys.trusted))
    serving = read_manifest(original).release_id
    releases = tmp_path / "releases"
    shutil.copytree(original, releases / serving)
    bench.notice(serving, 1)
    await bench.settled()
    assert bench.serving == serving

    candidate = tmp_path / "candidate"
    write_manifest(candidate, sign(save_release(candidate, make_items(6), 1), keys.trusted))
    known = [Wrong(f"known: {name}", mutate) for name, (_, mutate) in MUTATIONS.items()]
    wrong = [*damaged_files(), *bad_numbers(original), *bad_signatures(keys), *known]
    assert len({each.name for each in wrong}) == len(wrong)
    accepted: list[str] = []
    uncounted: list[str] = []
    sequence = 1
    for each in wrong:
        room = tmp_path / f"room-{sequence}"
        made = room / "made"
        shutil.copytree(candidate, made)
        each.mutate(made)
        if each.is_sealed:
            reseal(made)
            write_manifest(made, sign(read_manifest(made), keys.trusted))
        # Under the name that the mutation left, if that can be read: the store believes nothing.
        name = f"r{sequence:05d}-{sequence:016x}"
        if (made / "manifest.json").is_file():
            # Whatever is wrong with it is what the worker is to find.
            with contextlib.suppress(Exception):
                name = read_manifest(made).release_id
        shutil.rmtree(releases / name, ignore_errors=True)
        if made.exists():
            shutil.move(made, releases / name)
        sequence += 1
        before = refusals(bench)
        bench.notice(name, sequence)
        await bench.settled()
        if bench.serving == name:
            accepted.append(each.name)
        if refusals(bench) != before + 1:
            uncounted.append(each.name)
        shutil.rmtree(releases / name, ignore_errors=True)
        shutil.rmtree(room)
    for name in BAD_NAMES:
        sequence += 1
        before = refusals(bench)
        bench.notice(name, sequence)
        await bench.settled()
        if refusals(bench) != before + 1:
            uncounted.append(name)
    assert (accepted, uncounted, bench.serving) == ([], [], serving)
    assert len(wrong) + len(BAD_NAMES) >= 200
    assert not (tmp_path / "pickle-was-loaded").exists()
    # An older release, announced under its own old number, changes nothing either.
    bench.notice(serving, sequence + 1)
    bench.notice("r00000-0000000000000000", 0)
    await bench.settled()
    assert bench.serving == serving
    bench.state.close()
    record.note("mutated releases", len(wrong) + len(BAD_NAMES), accepted=len(accepted))


def refusals(bench: Bench) -> float:
    """Refused releases, over all reasons."""
    return sum(
        sample.value
        for metric in bench.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "driftline_releases_refused_total"
    )
