"""Items by their place in a knowledge graph: two films with one director and one composer are near.

An item is described by the pairs (relation, other entity) around its own entity; a pair that many
items share says little and counts little (inverse document frequency).  The vector is the item's
row in the truncated singular value decomposition of that matrix: latent semantic analysis
(Deerwester et al. 1990) with pairs for words.  It needs no training, and a new item is placed by
its first line.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from profiles.errors import DatasetError, SettingsError

Pair = tuple[str, str]
MOST_WORDS = 500
"""A language model reads some fifty tokens of an item; the rest is never looked at."""


@dataclass(frozen=True, slots=True)
class Graph:
    """`around`: the pairs of each entity, a relation that points at it marked by `^`;
    `entities`: the entity of each item, None where they have the same names; `names`: what
    entities are called."""

    around: dict[str, set[Pair]]
    entities: dict[str, str] | None
    names: dict[str, str]

    def of(self, item_id: str) -> set[Pair]:
        """The pairs around an item; none if the graph does not know it."""
        entity = item_id if self.entities is None else self.entities.get(item_id, "")
        return self.around.get(entity, set())

    def in_words(self, item_id: str) -> str:
        """What the graph says of an item, for a language model: relations by the last part of
        their name, entities that have one, at most `MOST_WORDS` characters.

        >>> around = {"m1": {("film.directed_by", "p1"), ("film.directed_by", "p2")}}
        >>> Graph(around, None, {"p1": "Ann Lee", "p2": "Bo Li"}).in_words("m1")
        'directed by Ann Lee, Bo Li'
        """
        by_relation: dict[str, list[str]] = defaultdict(list)
        for relation, other in sorted(self.of(item_id)):
            if other in self.names:
                word = relation.removeprefix("^").replace("/", ".").split(".")[-1]
                by_relation[word.replace("_", " ")].append(self.names[other])
        said = "; ".join(f"{word} {', '.join(named)}" for word, named in by_relation.items())
        return said[:MOST_WORDS]


def read_graph(triples: Path, links: Path | None = None, names: Path | None = None) -> Graph:
    """Tab-separated head, relation, tail; `links` item and entity, `names` entity and name.

    A first line whose fields end in `:token` is a header (RecBole's atomic files).
    Raises: DatasetError with the number of the line that cannot be used.
    """
    around: dict[str, set[Pair]] = defaultdict(set)
    for head, relation, tail in _lines(triples, 3):
        around[head].add((relation, tail))
        around[tail].add((f"^{relation}", head))
    entities = None if links is None else dict(_lines(links, 2))
    return Graph(dict(around), entities, {} if names is None else dict(_lines(names, 2)))


def graph_vectors(
    graph: Graph, items: Iterable[str], width: int, seed: int
) -> dict[str, list[float]]:
    """Vectors of those items that share a pair with another one.

    Raises: SettingsError when so few items share pairs that there are no `width` directions.
    """
    try:
        from scipy.sparse import csr_array
        from scipy.sparse.linalg import svds
    except ImportError as error:
        raise SettingsError(
            "a graph is decomposed with scipy: pip install 'driftline[vectors]'"
        ) from error

    described = {item: pairs for item in items if (pairs := graph.of(item))}
    shared: dict[Pair, int] = defaultdict(int)
    for pairs in described.values():
        for pair in pairs:
            shared[pair] += 1
    column = {pair: at for at, pair in enumerate(sorted(p for p, n in shared.items() if n > 1))}
    names = [item for item, pairs in described.items() if not column.keys().isdisjoint(pairs)]
    if width >= min(len(names), len(column)):
        raise SettingsError(
            f"{len(names)} items share {len(column)} pairs of relation and entity: too few for "
            f"{width} dimensions; set a smaller number in model.vectors, or look whether the "
            "graph's names are those of the items"
        )
    places = [
        (row, column[pair], np.log(len(names) / shared[pair]))
        for row, item in enumerate(names)
        for pair in sorted(described[item])
        if pair in column
    ]
    rows, columns, weights = (np.array(part) for part in zip(*places, strict=True))
    matrix = csr_array((weights, (rows, columns)), shape=(len(names), len(column)))
    left, sizes, _ = svds(matrix, k=width, rng=seed)
    vectors = (left * sizes).astype(np.float32)
    return {
        item: vector for item, vector in zip(names, vectors.tolist(), strict=True) if any(vector)
    }


def _lines(path: Path, fields: int) -> Iterator[list[str]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                found = line.rstrip("\r\n").split("\t")
                if number == 1 and all(name.endswith(":token") for name in found):
                    continue
                if len(found) != fields or not all(found):
                    raise DatasetError(
                        f"{path}, line {number}: {line.rstrip()!r} is not {fields} fields with "
                        "tabs between them"
                    )
                yield found
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
