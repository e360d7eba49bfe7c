"""A release: every learned thing that one embedding space is made of, as an immutable directory.

    manifest.json        what it is, whose child, sha256 and size of every other file, signature
    adapter/             what was learned of the language model, in PEFT's own folder format
    head.safetensors     `profiles.head.Head`
    items.safetensors    the catalogue encoded in this space (`ItemTable`)
    probe.safetensors    fixed texts' vectors as the trainer saw them: proof that a load took

The name of a release is the hash of its manifest, which holds the hashes of its files: two
releases with one name are the same bytes.  Nothing here is ever unpickled.  `open_release` is
the single door: it refuses, with a reason slug, whatever is not exactly right, and reads no file
before its size and hash are known to be good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from profiles.errors import ReleaseRefused
from profiles.head import Head
from profiles.layers import Floats
from profiles.manifest import (
    Manifest,
    check_plain,
    file_sha256,
    read_manifest,
    write_manifest,
    write_synced,
)
from profiles.modalities import Widths
from profiles.wire import key64

FILES = (
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "head.safetensors",
    "items.safetensors",
    "probe.safetensors",
)
MAX_FILE_BYTES = 16 * 2**30
MAX_NORM = 1e3
"""No row of a good item table is longer: LayerNorm leaves sqrt(D) times its gain.  No bias is
further from nought, either."""
PROBE_COSINE = 0.9999

Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class ItemTable:
    """The catalogue in one space.

    Shapes: keys (N,) `key64` of item ids, text_keys (N,) `content_key` of what was read (a worker
    re-encodes an item only when its content has another key), vectors (N, D) final item embeddings,
    ids (N, D) collaborative part, bias (N,) learned bias with popularity at release time,
    counts (N,) events behind each item.
    """

    keys: Keys
    text_keys: Keys
    vectors: Floats
    ids: Floats
    bias: Floats
    counts: Floats


@dataclass(frozen=True, slots=True)
class Release:
    """A verified release, in memory.  `key` is what a stored profile carries of its name."""

    manifest: Manifest
    directory: Path
    head: Head
    items: ItemTable
    probe_vectors: Floats

    @property
    def release_id(self) -> str:
        return self.manifest.release_id

    @property
    def key(self) -> int:
        return key64(self.manifest.release_id)

    @property
    def adapter_directory(self) -> Path:
        return self.directory / "adapter"


def write_release(
    directory: Path, manifest: Manifest, head: Head, items: ItemTable, probe_vectors: Floats
) -> Manifest:
    """Complete a release in `directory`, where `adapter/` has already been saved by PEFT.

    Fills in hashes, sizes and the name; fsyncs every file and the directory.  The caller signs
    (`profiles.signing.sign`) and publishes (`profiles.registry.ReleaseStore.publish`).
    """
    write_synced(directory / "head.safetensors", save_tensors(head.arrays()))
    table: dict[str, npt.NDArray[Any]] = {
        # safetensors' numpy front end knows no uint64: the same bits travel as int64.
        "keys": items.keys.view(np.int64),
        "text_keys": items.text_keys.view(np.int64),
        "vectors": items.vectors,
        "ids": items.ids,
        "bias": items.bias,
        "counts": items.counts,
    }
    write_synced(directory / "items.safetensors", save_tensors(table))
    write_synced(directory / "probe.safetensors", save_tensors({"vectors": probe_vectors}))
    manifest = msgspec.structs.replace(
        manifest,
        files={name: file_sha256(directory / name) for name in FILES},
        sizes={name: (directory / name).stat().st_size for name in FILES},
        signature="",
    )
    manifest = msgspec.structs.replace(manifest, release_id=manifest.content_name())
    write_manifest(directory, manifest)
    return manifest


@dataclass(frozen=True, slots=True)
class Expected:
    """What this deployment's settings make of a release; anything else is refused."""

    base_sha256: str
    dim: int
    layers: int
    lora_rank: int
    actions: tuple[str, ...]
    pooling: str
    max_tokens: int
    peft_method: str = "lora"
    modalities: Widths = ()


def open_release(directory: Path, expected: Expected) -> Release:
    """Verify everything that needs no language model, then load.

    Raises: ReleaseRefused; its `reason` is one of missing-file, symlink, too-large, manifest,
    format, name, hash, base, shape, peft-method, rank, actions, vectors, tensors, head-*, items-*,
    probe-*, adapter-*.
    """
    manifest = read_manifest(directory)
    _check_expected(manifest, expected)
    if set(manifest.files) != set(FILES) or set(manifest.sizes) != set(FILES):
        raise ReleaseRefused("manifest", f"manifest lists {sorted(manifest.files)}, not {FILES}")
    for name in FILES:
        path = directory / name
        check_plain(path, root=directory)
        size = path.stat().st_size
        if size != manifest.sizes[name] or size > MAX_FILE_BYTES:
            raise ReleaseRefused(
                "hash", f"{name} has {size} bytes, its manifest says {manifest.sizes[name]}"
            )
        if file_sha256(path) != manifest.files[name]:
            raise ReleaseRefused("hash", f"{name} does not have the hash that its manifest names")
    head = Head.from_arrays(
        manifest.shape, tuple(manifest.actions), _tensors(directory / "head.safetensors")
    )
    items = _item_table(_tensors(directory / "items.safetensors"), manifest.shape.dim)
    probe = _tensors(directory / "probe.safetensors").get("vectors")
    wanted = (len(manifest.probe_texts), manifest.shape.text_dim)
    if probe is None or probe.shape != wanted or probe.dtype != np.float32 or not len(probe):
        raise ReleaseRefused("probe-shape", "probe vectors do not fit the manifest's probe texts")
    _check_floats("probe", probe)
    _check_adapter_config(directory / "adapter/adapter_config.json", manifest)
    for name, adapter in _tensors(directory / "adapter/adapter_model.safetensors").items():
        _check_floats("adapter", adapter, what=name)
    return Release(manifest, directory, head, items, probe)


def check_probe(release: Release, seen_vectors: Floats) -> float:
    """Compare what this process's loaded adapter makes of the probe texts with the trainer's.

    Returns: the lowest cosine.  Raises: ReleaseRefused (probe-cosine).
    """
    if seen_vectors.shape != release.probe_vectors.shape:
        raise ReleaseRefused("probe-shape", f"probe gave {seen_vectors.shape}")
    lengths = np.linalg.norm(seen_vectors, axis=1) * np.linalg.norm(release.probe_vectors, axis=1)
    cosines = (seen_vectors * release.probe_vectors).sum(axis=1) / np.maximum(lengths, 1e-12)
    lowest = float(cosines.min())
    if not lowest >= PROBE_COSINE:
        raise ReleaseRefused(
            "probe-cosine",
            f"probe texts come out at cosine {lowest:.6f}, below {PROBE_COSINE}: the adapter of "
            f"{release.release_id} did not load as it was trained",
        )
    return lowest


def _check_expected(manifest: Manifest, expected: Expected) -> None:
    checks = (
        ("base", manifest.base_sha256, expected.base_sha256),
        ("base", manifest.pooling, expected.pooling),
        ("base", manifest.max_tokens, expected.max_tokens),
        ("shape", (manifest.shape.dim, manifest.shape.layers), (expected.dim, expected.layers)),
        ("peft-method", manifest.peft_method, expected.peft_method),
        ("rank", manifest.lora_rank, expected.lora_rank),
        ("actions", tuple(manifest.actions), expected.actions),
        ("shape", manifest.shape.actions, len(expected.actions)),
        ("vectors", dict(manifest.shape.widths), dict(expected.modalities)),
    )
    for reason, found, wanted in checks:
        if found != wanted:
            raise ReleaseRefused(
                reason,
                f"release {manifest.release_id} has {reason} {found!r}, these settings want "
                f"{wanted!r}; use the settings it was trained with, or train a new one",
            )


def _item_table(tensors: Mapping[str, npt.NDArray[Any]], dim: int) -> ItemTable:
    wanted = {"keys", "text_keys", "vectors", "ids", "bias", "counts"}
    if set(tensors) != wanted:
        raise ReleaseRefused("items-shape", f"items.safetensors holds {sorted(tensors)}")
    count = tensors["keys"].size
    for name in wanted:
        expected_shape = (count, dim) if name in ("vectors", "ids") else (count,)
        expected_type = np.int64 if name in ("keys", "text_keys") else np.float32
        if tensors[name].shape != expected_shape or tensors[name].dtype != expected_type:
            raise ReleaseRefused(
                "items-shape",
                f"items.{name} is {tensors[name].dtype}{tensors[name].shape}, "
                f"not {expected_type.__name__}{expected_shape}",
            )
    for name in ("vectors", "ids", "bias", "counts"):
        _check_floats("items", tensors[name], what=name)
    if (tensors["counts"] < 0).any():
        raise ReleaseRefused("items-counts", "items.safetensors counts fewer events than none")
    keys = tensors["keys"].view(np.uint64)
    if len(np.unique(keys)) != count:
        raise ReleaseRefused("items-shape", "items.safetensors names an item twice")
    return ItemTable(
        keys=keys,
        text_keys=tensors["text_keys"].view(np.uint64),
        vectors=tensors["vectors"].astype(np.float32, copy=False),
        ids=tensors["ids"].astype(np.float32, copy=False),
        bias=tensors["bias"].astype(np.float32, copy=False),
        counts=tensors["counts"].astype(np.float32, copy=False),
    )


def _check_floats(group: str, array: npt.NDArray[np.generic], what: str = "") -> None:
    name = f"{group} {what}".strip()
    if not np.isfinite(array).all():
        raise ReleaseRefused(f"{group}-not-finite", f"{name} holds NaN or infinity")
    if what != "counts" and array.size:
        # In float64: the square of a large float32 would overflow.
        rows = array.astype(np.float64).reshape(len(array), -1) if array.ndim else array
        if float(np.linalg.norm(rows, axis=-1).max()) > MAX_NORM:
            raise ReleaseRefused(f"{group}-norm", f"{name} has a row longer than {MAX_NORM:g}")


def _check_adapter_config(path: Path, manifest: Manifest) -> None:
    """PEFT reads this file: an adapter of another kind or rank would not fit the base."""
    try:
        config = msgspec.json.decode(path.read_bytes(), type=_AdapterConfig)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ReleaseRefused("adapter-config", f"{path} is no adapter config: {error}") from error
    if config.peft_type != manifest.peft_method.upper():
        raise ReleaseRefused(
            "adapter-config",
            f"{path} is of kind {config.peft_type!r}, its manifest says {manifest.peft_method!r}",
        )
    rank = {"LORA": config.r, "ADALORA": config.target_r}.get(config.peft_type)
    if rank is not None and rank != manifest.lora_rank:
        raise ReleaseRefused(
            "rank", f"{path} has rank {rank}, its manifest says {manifest.lora_rank}"
        )


class _AdapterConfig(msgspec.Struct):
    """What we check of PEFT's own file; the rest is PEFT's business.  Some kinds have no rank."""

    peft_type: str
    r: int = 0
    target_r: int = 0


# Any array type may lie in a file; every caller checks dtype and shape before use.
def _tensors(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    try:
        return load_tensors(path.read_bytes())
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ReleaseRefused(
            "tensors", f"{path.name} is not a safetensors file: {error}"
        ) from error
