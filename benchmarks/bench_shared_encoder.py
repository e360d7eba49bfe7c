"""What several domains' language models cost: a child for each worker, or one shared encoder.

Both read real film titles with the bundled base; each domain has a random adapter of its own
(**synthetic**: adapters weigh and cost the same whatever they learned).  For 1, 2, 4 and 8 domains,
in turns:

    children   a child process for each domain, as a worker starts one (`stream.language_model`)
    encoder    `driftline encoder`'s server in one process, with a socket for each domain

Memory is what is a process's own (USS), its language model loaded and every domain read for once.
Speed is texts a second with all domains reading at the same time: children may use every core, the
encoder has one thread, and no bfloat16.

    make bench-shared_encoder [BENCH_ARGS="--domains 1,2 --texts 100"]
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch
from prometheus_client import CollectorRegistry

from benchmarks.harness import Result, load_average, report, say
from benchmarks.offline.interactions import load_interactions
from learner.language import LanguageModel as Trainable
from profiles.metrics import EncoderMetrics
from profiles.settings.learning import ModelSettings
from stream.language_model import ChildModel, LanguageModel
from stream.shared_encoder.client import SharedModel
from stream.shared_encoder.server import EncoderServer, Tenant

MIB = 2**20
PART = 64
"""Texts of one call, as a worker sends them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--domains", default="1,2,4,8", help="how many, separated by commas")
    parser.add_argument("--texts", type=int, default=640, help="of each domain")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--name", default="shared_encoder", help="of the result file")
    asked = parser.parse_args()
    started_load = load_average()
    settings = ModelSettings()
    texts = [item.full_text() for item in load_interactions("movielens", None).catalogue]
    found: Result = {}
    with tempfile.TemporaryDirectory(prefix="dl-") as folder:
        root = Path(folder)
        most = max(map(int, asked.domains.split(",")))
        adapters = make_adapters(root, settings, most, asked.seed)
        weight_kib = round((adapters[0] / "adapter_model.safetensors").stat().st_size / 1024, 1)
        for count in map(int, asked.domains.split(",")):
            runs = [
                both(root, settings, adapters[:count], texts[: asked.texts])
                for _ in range(asked.repetitions)
            ]
            found[str(count)] = {
                way: {
                    name: round(statistics.median([run[way][name] for run in runs]), 1)
                    for name in ("memory_mib", "texts_per_s", "ready_s")
                }
                for way in ("children", "encoder")
            }
            say(f"{count} domains: {found[str(count)]}")
    report(
        asked.name,
        asked.seed,
        vars(asked),
        started_load,
        data="film titles of MovieLens-100K; adapters synthetic",
        adapter_kib=weight_kib,
        domains=found,
    )


def make_adapters(root: Path, settings: ModelSettings, count: int, seed: int) -> list[Path]:
    """Random ones, one for a domain, each below its domain's directory."""
    found = []
    for number in range(count):
        language = Trainable.load(settings, None, "cpu", seed + number)
        with torch.no_grad():
            for weight in language.weights().values():
                weight.normal_(0.0, 0.02)
        folder = root / f"domain-{number}" / "adapter"
        folder.mkdir(parents=True)
        language.save(folder)
        found.append(folder)
    return found


def both(
    root: Path, settings: ModelSettings, adapters: Sequence[Path], texts: Sequence[str]
) -> dict[str, Result]:
    """One repetition of each way."""
    return {
        "children": asyncio.run(by_children(settings, adapters, texts)),
        "encoder": asyncio.run(by_encoder(root, settings, adapters, texts)),
    }


async def by_children(
    settings: ModelSettings, adapters: Sequence[Path], texts: Sequence[str]
) -> Result:
    """A child for each adapter."""
    began_s = time.perf_counter()
    models = [ChildModel(settings) for _ in adapters]
    try:
        await asyncio.gather(*(model.checked() for model in models))
        children = [
            process.pid
            for model in models
            for process in (model._pool._processes or {}).values()
            if process.pid is not None
        ]
        return await measured(models, adapters, texts, children, began_s)
    finally:
        for model in models:
            model.close()


async def by_encoder(
    root: Path, settings: ModelSettings, adapters: Sequence[Path], texts: Sequence[str]
) -> Result:
    """One process for all of them."""
    began_s = time.perf_counter()
    sockets = [root / f"{number}.sock" for number in range(len(adapters))]
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=serve, args=(settings, list(adapters), sockets), daemon=True)
    process.start()
    models = [SharedModel(socket) for socket in sockets]
    try:
        await asyncio.gather(*(model.checked() for model in models))
        assert process.pid is not None, "it was started"
        return await measured(models, adapters, texts, [process.pid], began_s)
    finally:
        for model in models:
            model.close()
        process.terminate()
        process.join()


def serve(settings: ModelSettings, adapters: list[Path], sockets: list[Path]) -> None:
    """In the encoder's process."""
    torch.set_num_threads(1)
    os.nice(5)  # as a worker's child
    tenants = [
        Tenant(str(number), settings, socket, (adapter.parent,))
        for number, (adapter, socket) in enumerate(zip(adapters, sockets, strict=True))
    ]
    server = EncoderServer(tenants, 256 * MIB, EncoderMetrics(CollectorRegistry()))
    asyncio.run(server.run())


async def measured(
    models: Sequence[LanguageModel],
    adapters: Sequence[Path],
    texts: Sequence[str],
    processes: Sequence[int],
    began_s: float,
) -> Result:
    """Read a little with every adapter, weigh the processes, then read everything at once."""
    await asyncio.gather(
        *(m.encode(a, list(texts[:PART])) for m, a in zip(models, adapters, strict=True))
    )
    ready_s = time.perf_counter() - began_s
    memory = sum(psutil.Process(pid).memory_full_info().uss for pid in processes) / MIB
    began_s = time.perf_counter()

    async def read(model: LanguageModel, adapter: Path) -> None:
        for start in range(0, len(texts), PART):
            await model.encode(adapter, list(texts[start : start + PART]))

    await asyncio.gather(*map(read, models, adapters))
    rate = len(texts) * len(models) / (time.perf_counter() - began_s)
    return {"memory_mib": memory, "texts_per_s": rate, "ready_s": ready_s}


if __name__ == "__main__":
    main()
