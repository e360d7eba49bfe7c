"""The one door for releases: whatever is not exactly right is refused, and its name is said.

A mutation either breaks what lies on disk, or is *resealed*: the manifest is made to fit the
changed files, as a faulty or malicious trainer would leave it.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from profiles.errors import ReleaseRefused, SettingsError
from profiles.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    file_sha256,
    read_manifest,
    write_manifest,
)
from profiles.release import FILES, check_probe, open_release
from profiles.signing import check_signature, create_key, load_trusted, sign
from tests.unit.builders import EXPECTED, make_head, make_items, make_table, save_release

pytestmark = pytest.mark.unit

HEAD, ITEMS, PROBE = "head.safetensors", "items.safetensors", "probe.safetensors"
ADAPTER, CONFIG = "adapter/adapter_model.safetensors", "adapter/adapter_config.json"
Mutation = Callable[[Path], object]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A good release on disk."""
    save_release(tmp_path / "release", make_items(4))
    return tmp_path / "release"


# Any: a manifest's JSON, and whatever a mutation puts into it.
def edit(directory: Path, **fields: Any) -> None:
    """Change the manifest as it lies there; its name no longer fits."""
    path = directory / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def reseal(directory: Path, **fields: Any) -> None:
    """Make manifest, hashes, sizes and name fit whatever lies there now."""
    manifest = msgspec.json.decode((directory / "manifest.json").read_bytes(), type=Manifest)
    files = {name: file_sha256(directory / name) for name in FILES}
    sizes = {name: (directory / name).stat().st_size for name in FILES}
    manifest = msgspec.structs.replace(manifest, **{"files": files, "sizes": sizes, **fields})
    write_manifest(directory, msgspec.structs.replace(manifest, release_id=manifest.content_name()))


def reshape(**changes: Any) -> Mutation:
    return lambda directory: reseal(directory, shape=replace(make_head().shape, **changes))


def with_tensors(name: str, **arrays: Any) -> Mutation:
    """Replace arrays of a file (None removes one), then reseal."""

    def mutate(directory: Path) -> None:
        tensors = {**load_file(directory / name), **arrays}
        kept = {key: array for key, array in tensors.items() if array is not None}
        save_file(kept, directory / name)
        reseal(directory)

    return mutate


def with_bytes(name: str, payload: bytes) -> Mutation:
    def mutate(directory: Path) -> None:
        (directory / name).write_bytes(payload)
        reseal(directory)

    return mutate


def flip(name: str) -> Mutation:
    def mutate(directory: Path) -> None:
        payload = bytearray((directory / name).read_bytes())
        payload[len(payload) // 2] ^= 1
        (directory / name).write_bytes(payload)

    return mutate


def truncate(name: str) -> Mutation:
    return lambda directory: os.truncate(directory / name, 20)


def link(name: str) -> Mutation:
    """The same bytes, but elsewhere."""

    def mutate(directory: Path) -> None:
        (directory / name).rename(directory.parent / "elsewhere")
        (directory / name).symlink_to(directory.parent / "elsewhere")

    return mutate


def listed(name: str, digest: str = "0" * 64) -> Mutation:
    """One more file in the manifest, named right."""

    def mutate(directory: Path) -> None:
        manifest = read_manifest(directory)
        reseal(
            directory,
            files={**manifest.files, name: digest},
            sizes={**manifest.sizes, name: 1},
        )

    return mutate


def unlisted(directory: Path) -> None:
    manifest = read_manifest(directory)
    files = {name: digest for name, digest in manifest.files.items() if name != HEAD}
    reseal(directory, files=files)


class Exploit:
    """What a pickle would run."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, ("pickle-was-loaded",)


HEAD_ARRAYS = make_head().arrays()
TABLE = make_table(make_items(4))
NAN = np.float32("nan")
ONE = np.ones(1, np.float32)
TWO_ROWS = np.eye(2, 6, dtype=np.float32)


def changed(array: Any, value: Any) -> Any:
    copy = array.copy()
    copy.flat[-1] = value
    return copy


def huge_header(directory: Path) -> None:
    with_bytes(HEAD, (2**60).to_bytes(8, "little") + b"{}")(directory)


def deep(directory: Path) -> None:
    (directory / "manifest.json").write_text('{"deep":' + "[" * 100_000 + "]" * 100_000 + "}")


def directory_for_head(directory: Path) -> None:
    (directory / HEAD).unlink()
    (directory / HEAD).mkdir()


def no_probe(directory: Path) -> None:
    with_tensors(PROBE, vectors=np.zeros((0, 6), np.float32))(directory)
    reseal(directory, probe_texts=[])


def fewer_actions(directory: Path) -> None:
    with_tensors(HEAD, action=HEAD_ARRAYS["action"][:2])(directory)
    reshape(actions=2)(directory)


def big(directory: Path) -> None:
    with (directory / "manifest.json").open("ab") as file:
        file.write(b" " * MAX_MANIFEST_BYTES)


MUTATIONS: dict[str, tuple[str, Mutation]] = {
    # What lies there is not what was made.
    "no manifest": ("missing-file", lambda d: (d / "manifest.json").unlink()),
    "nothing at all": ("missing-file", lambda d: d.rename(d.with_name("moved"))),
    "no head": ("missing-file", lambda d: (d / HEAD).unlink()),
    "no adapter": ("missing-file", lambda d: (d / ADAPTER).unlink()),
    "directory for a file": ("missing-file", directory_for_head),
    "head truncated": ("hash", truncate(HEAD)),
    "items truncated": ("hash", truncate(ITEMS)),
    "head flipped": ("hash", flip(HEAD)),
    "items flipped": ("hash", flip(ITEMS)),
    "probe flipped": ("hash", flip(PROBE)),
    "adapter flipped": ("hash", flip(ADAPTER)),
    "adapter config flipped": ("hash", flip(CONFIG)),
    "head is a link": ("symlink", link(HEAD)),
    "manifest is a link": ("symlink", link("manifest.json")),
    "adapter folder is a link": ("symlink", link("adapter")),
    # The manifest is no manifest, or not its own.
    "manifest truncated": ("manifest", truncate("manifest.json")),
    "manifest empty": ("manifest", lambda d: (d / "manifest.json").write_bytes(b"")),
    "manifest not utf-8": ("manifest", lambda d: (d / "manifest.json").write_bytes(b'"\xff"')),
    "manifest a list": ("manifest", lambda d: (d / "manifest.json").write_text("[]")),
    "manifest without fields": ("manifest", lambda d: (d / "manifest.json").write_text("{}")),
    "manifest nested without end": ("manifest", deep),
    "manifest huge": ("too-large", big),
    "other format": ("format", lambda d: reseal(d, format=2)),
    "edited": ("name", lambda d: edit(d, trained_events=10**6)),
    "renamed": ("name", lambda d: edit(d, release_id="r00001-0000000000000000")),
    "unnamed": ("name", lambda d: edit(d, release_id="")),
    "number beyond every integer": ("name", lambda d: edit(d, sequence=10**30)),
    "offset beyond every integer": ("name", lambda d: edit(d, offsets={"events/0": 10**30})),
    "negative sequence": ("manifest", lambda d: reseal(d, sequence=-1)),
    "one file more": ("manifest", listed("more.safetensors")),
    "a path out of the release": ("manifest", listed("../../etc/passwd")),
    "an absolute path": ("manifest", listed("/etc/passwd")),
    "one file fewer": ("manifest", unlisted),
    # It is another deployment's.
    "other base": ("base", lambda d: reseal(d, base_sha256="c" * 64)),
    "other pooling": ("base", lambda d: reseal(d, pooling="last")),
    "other text length": ("base", lambda d: reseal(d, max_tokens=99)),
    "other rank": ("rank", lambda d: reseal(d, lora_rank=3)),
    "other width": ("shape", reshape(dim=9)),
    "other depth": ("shape", reshape(layers=2)),
    "actions added": ("actions", lambda d: reseal(d, actions=["click", "hide", "like", "nod"])),
    "actions in another order": ("actions", lambda d: reseal(d, actions=["like", "hide", "click"])),
    # Fewer rows of actions than actions: an index error in the middle of serving.
    "head of fewer actions": ("shape", fewer_actions),
    # Its arrays are not what the manifest says.
    "pickle for head": ("tensors", with_bytes(HEAD, pickle.dumps(Exploit()))),
    "pickle for adapter": ("tensors", with_bytes(ADAPTER, pickle.dumps(Exploit()))),
    "empty items": ("tensors", with_bytes(ITEMS, b"")),
    "header without end": ("tensors", huge_header),
    "wider feed-forward": ("head-shape", reshape(hidden=99)),
    "shape beyond every memory": ("head-shape", reshape(hidden=2**62)),
    "array missing": ("head-shape", with_tensors(HEAD, start=None)),
    "array too many": ("head-shape", with_tensors(HEAD, extra=ONE)),
    "array transposed": ("head-shape", with_tensors(HEAD, gap=np.zeros((8, 4), np.float32))),
    "head in float64": (
        "head-dtype",
        with_tensors(HEAD, start=HEAD_ARRAYS["start"].astype(np.float64)),
    ),
    "head NaN": ("head-not-finite", with_tensors(HEAD, value=changed(HEAD_ARRAYS["value"], NAN))),
    "head infinite": ("head-not-finite", with_tensors(HEAD, score_scale=ONE * np.inf)),
    "head huge": ("head-norm", with_tensors(HEAD, value=changed(HEAD_ARRAYS["value"], 1e30))),
    "gate of nought": ("head-gate", with_tensors(HEAD, id_gate=ONE * 0)),
    "gate below nought": ("head-gate", with_tensors(HEAD, id_gate=-ONE)),
    "item named twice": ("items-shape", with_tensors(ITEMS, keys=np.zeros(4, np.int64))),
    "items without bias": ("items-shape", with_tensors(ITEMS, bias=None)),
    "items of unlike number": ("items-shape", with_tensors(ITEMS, bias=np.zeros(3, np.float32))),
    "items of another width": (
        "items-shape",
        with_tensors(ITEMS, vectors=np.zeros((4, 7), np.float32)),
    ),
    "item keys a scalar": ("items-shape", with_tensors(ITEMS, keys=np.array(4))),
    "item keys as floats": ("items-shape", with_tensors(ITEMS, keys=np.zeros(4, np.float32))),
    "items in float16": (
        "items-shape",
        with_tensors(ITEMS, vectors=TABLE.vectors.astype(np.float16)),
    ),
    "item vector NaN": (
        "items-not-finite",
        with_tensors(ITEMS, vectors=changed(TABLE.vectors, NAN)),
    ),
    "item bias infinite": (
        "items-not-finite",
        with_tensors(ITEMS, bias=changed(TABLE.bias, -np.inf)),
    ),
    "item vector long": ("items-norm", with_tensors(ITEMS, vectors=changed(TABLE.vectors, 2e3))),
    "item vector huge": ("items-norm", with_tensors(ITEMS, ids=changed(TABLE.ids, 3e38))),
    "item bias huge": ("items-norm", with_tensors(ITEMS, bias=changed(TABLE.bias, 1e30))),
    "item count below nought": (
        "items-counts",
        with_tensors(ITEMS, counts=changed(TABLE.counts, -10)),
    ),
    "probe missing": ("probe-shape", with_tensors(PROBE, vectors=None)),
    "probe of too few texts": ("probe-shape", with_tensors(PROBE, vectors=TWO_ROWS)),
    "probe of no text": ("probe-shape", no_probe),
    "probe of integers": ("probe-shape", with_tensors(PROBE, vectors=np.ones((3, 6), np.int64))),
    "probe NaN": ("probe-not-finite", with_tensors(PROBE, vectors=np.full((3, 6), NAN))),
    "adapter NaN": (
        "adapter-not-finite",
        with_tensors(ADAPTER, **{"query.lora_A.weight": np.full((2, 6), NAN)}),
    ),
    "adapter huge": (
        "adapter-norm",
        with_tensors(ADAPTER, **{"query.lora_A.weight": np.full((2, 6), 1e30, np.float32)}),
    ),
    "adapter config no JSON": ("adapter-config", with_bytes(CONFIG, b"{")),
    "adapter config a list": ("adapter-config", with_bytes(CONFIG, b"[]")),
    "adapter of another kind": ("adapter-config", with_bytes(CONFIG, b'{"peft_type":"IA3","r":2}')),
    "adapter of another rank": ("rank", with_bytes(CONFIG, b'{"peft_type":"LORA","r":64}')),
}


@pytest.mark.parametrize("what", MUTATIONS)
def test_a_release_that_is_not_right_is_refused_for_what_is_wrong(
    what: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(directory.parent)
    reason, mutate = MUTATIONS[what]
    mutate(directory)
    with pytest.raises(ReleaseRefused) as refused:
        open_release(directory, EXPECTED)
    assert refused.value.reason == reason
    assert len(str(refused.value)) > 20
    assert not Path("pickle-was-loaded").exists()


def test_what_was_written_is_what_is_opened(tmp_path: Path) -> None:
    items = make_items(4)
    manifest = save_release(tmp_path, items)
    release = open_release(tmp_path, EXPECTED)
    assert release.manifest == manifest == read_manifest(tmp_path)
    assert release.release_id == manifest.release_id == manifest.content_name()
    assert release.adapter_directory == tmp_path / "adapter"
    for name, array in make_head().arrays().items():
        np.testing.assert_array_equal(getattr(release.head, name), array)
    table = make_table(items)
    for name in ("keys", "text_keys", "vectors", "ids", "bias", "counts"):
        array = getattr(release.items, name)
        np.testing.assert_array_equal(array, getattr(table, name))
        assert array.dtype == getattr(table, name).dtype


def test_a_release_without_items_is_a_release(tmp_path: Path) -> None:
    save_release(tmp_path, [])
    assert not len(open_release(tmp_path, EXPECTED).items.keys)


def test_files_that_the_manifest_does_not_name_are_not_read(directory: Path) -> None:
    (directory / "notes.pkl").write_bytes(pickle.dumps(Exploit()))
    open_release(directory, EXPECTED)


def test_the_same_content_has_the_same_name_and_other_content_another(tmp_path: Path) -> None:
    names = [
        save_release(tmp_path / str(at), make_items(count), seed).release_id
        for at, (count, seed) in enumerate([(3, 0), (3, 0), (4, 0), (3, 1)])
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 3
    assert names[0].startswith("r00001-")
    assert names[3].startswith("r00002-")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_damage_to_the_manifest_is_refused_or_changes_nothing_that_it_says(
    directory: Path, at: float, bit: int, cut: bool
) -> None:
    """A bit of the name of an empty field may flip: an unknown field says nothing."""
    path = directory / "manifest.json"
    good = path.read_bytes()
    bad = bytearray(good)
    bad[int(at * len(bad))] ^= 1 << bit
    path.write_bytes(good[: int(at * len(good))] if cut else bad)
    try:
        manifest = open_release(directory, EXPECTED).manifest
        assert manifest.signed_bytes() == msgspec.json.decode(good, type=Manifest).signed_bytes()
    except ReleaseRefused:
        pass
    finally:
        path.write_bytes(good)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    name=st.sampled_from([HEAD, ITEMS, PROBE, ADAPTER]),
    at=st.integers(0, 200),
    value=st.integers(0, 255),
)
def test_no_damage_to_a_header_is_ever_more_than_a_refusal(
    directory: Path, name: str, at: int, value: int
) -> None:
    """Resealed: the hash cannot help here."""
    path = directory / name
    good = path.read_bytes()
    bad = bytearray(good)
    bad[at] = value
    path.write_bytes(bad)
    try:
        reseal(directory)
        open_release(directory, EXPECTED)
    except ReleaseRefused:
        pass
    finally:
        path.write_bytes(good)
        reseal(directory)


# --- the probe ----------------------------------------------------------------------------------


def test_a_probe_that_comes_out_the_same_proves_the_load(directory: Path) -> None:
    release = open_release(directory, EXPECTED)
    assert check_probe(release, release.probe_vectors * np.float32(2.0)) == pytest.approx(1.0)


@pytest.mark.parametrize("wrong", ["turned", "zero", "nan", "fewer", "none"])
def test_a_probe_that_comes_out_differently_refuses_the_release(
    directory: Path, wrong: str
) -> None:
    release = open_release(directory, EXPECTED)
    seen = release.probe_vectors.copy()
    vectors = {
        "turned": np.roll(seen, 1, axis=1),
        "zero": seen * 0,
        "nan": seen * NAN,
        "fewer": seen[:2],
        "none": np.zeros((0, 0), np.float32),
    }[wrong]
    with pytest.raises(ReleaseRefused) as refused:
        check_probe(release, vectors)
    assert refused.value.reason == ("probe-shape" if wrong in ("fewer", "none") else "probe-cosine")


# --- signatures ---------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    create_key(private, public)
    return private, public


def test_a_signed_release_keeps_its_name_and_passes(
    directory: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    private, public = keys
    other = tmp_path / "other.pem"
    create_key(tmp_path / "x.pem", other)
    signed = sign(read_manifest(directory), private)
    write_manifest(directory, signed)
    opened = open_release(directory, EXPECTED).manifest
    assert opened.release_id == signed.content_name()
    check_signature(opened, load_trusted([other, public]))
    check_signature(opened, [])


@pytest.mark.parametrize(
    ("signature", "reason"),
    [("", "unsigned"), ("no hex", "signature"), ("00" * 64, "signature"), ("00", "signature")],
)
def test_where_keys_are_trusted_no_other_signature_passes(
    directory: Path, keys: tuple[Path, Path], signature: str, reason: str
) -> None:
    manifest = msgspec.structs.replace(read_manifest(directory), signature=signature)
    with pytest.raises(ReleaseRefused) as refused:
        check_signature(manifest, load_trusted([keys[1]]))
    assert refused.value.reason == reason


def test_a_signature_does_not_carry_over_to_other_content(
    directory: Path, keys: tuple[Path, Path]
) -> None:
    private, public = keys
    signed = sign(read_manifest(directory), private)
    for altered in (
        msgspec.structs.replace(signed, trained_events=9),
        msgspec.structs.replace(signed, files={**signed.files, HEAD: "0" * 64}),
    ):
        with pytest.raises(ReleaseRefused, match="no trusted key"):
            check_signature(altered, load_trusted([public]))


def test_a_private_key_is_its_owners_alone_and_is_never_overwritten(
    keys: tuple[Path, Path],
) -> None:
    private, public = keys
    assert private.stat().st_mode & 0o077 == 0
    before = private.read_bytes()
    with pytest.raises(SettingsError, match="exists"):
        create_key(private, public)
    assert private.read_bytes() == before


def test_a_key_may_have_a_password(directory: Path, tmp_path: Path) -> None:
    private, public = tmp_path / "a.pem", tmp_path / "b.pem"
    create_key(private, public, password="secret")
    manifest = read_manifest(directory)
    check_signature(sign(manifest, private, "secret"), load_trusted([public]))
    for password in (None, "wrong"):
        with pytest.raises(SettingsError, match=r"security\.signing_key"):
            sign(manifest, private, password)


@pytest.mark.parametrize("payload", [b"", b"no key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n"])
def test_a_key_file_that_is_none_is_a_settings_error(
    directory: Path, tmp_path: Path, payload: bytes
) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(payload)
    with pytest.raises(SettingsError, match=r"security\.trusted_keys"):
        load_trusted([path])
    with pytest.raises(SettingsError, match=r"security\.trusted_keys"):
        load_trusted([tmp_path / "absent.pem"])
    with pytest.raises(SettingsError, match=r"security\.signing_key"):
        sign(read_manifest(directory), path)
