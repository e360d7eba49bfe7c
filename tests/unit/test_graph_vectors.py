"""Items by their place in a knowledge graph; the graphs here are made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from profiles.errors import DatasetError, SettingsError
from stream.side_vectors.graph import graph_vectors, read_graph

pytestmark = pytest.mark.unit

KINDS = 4
EACH = 6


def write_graph(folder: Path) -> tuple[Path, Path]:
    """Films of four studios; each has an actor of its own beside its studio's stars."""
    lines = ["head_id:token\trelation_id:token\ttail_id:token"]
    links = ["item_id:token\tentity_id:token"]
    for kind in range(KINDS):
        for number in range(EACH):
            film = f"m.{kind}{number}"
            links.append(f"film-{kind}-{number}\t{film}")
            lines.append(f"{film}\tby\tstudio-{kind}")
            lines += [f"star-{kind}-{(number + n) % 4}\tplays in\t{film}" for n in range(2)]
            lines.append(f"{film}\twith\tunknown-{kind}-{number}")
    triples, linked = folder / "graph.tsv", folder / "links.tsv"
    triples.write_text("\n".join(lines) + "\n")
    linked.write_text("\n".join(links) + "\n")
    return triples, linked


def test_items_with_the_same_makers_are_near_one_another(tmp_path: Path) -> None:
    graph = read_graph(*write_graph(tmp_path))
    names = [f"film-{kind}-{n}" for kind in range(KINDS) for n in range(EACH)]
    vectors = graph_vectors(graph, [*names, "film-of-nobody"], KINDS, seed=1)
    assert list(vectors) == names
    rows = np.array(list(vectors.values()))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    near = rows @ rows.T
    same = np.equal.outer(np.arange(len(names)) // EACH, np.arange(len(names)) // EACH)
    assert near[same].min() > 0.8 > 0.2 > np.abs(near[~same]).max()


def test_the_same_graph_gives_the_same_vectors(tmp_path: Path) -> None:
    graph = read_graph(*write_graph(tmp_path))
    names = [f"film-0-{n}" for n in range(EACH)] + [f"film-1-{n}" for n in range(EACH)]
    assert graph_vectors(graph, names, 2, seed=1) == graph_vectors(graph, names, 2, seed=1)


def test_what_the_graph_says_is_said_in_words_of_those_that_have_a_name(tmp_path: Path) -> None:
    triples, links = write_graph(tmp_path)
    names = tmp_path / "names.tsv"
    names.write_text("studio-0\tOld Mill\nstar-0-0\tAnn Lee\nstar-0-1\tBo Li\n")
    graph = read_graph(triples, links, names)
    assert graph.in_words("film-0-0") == "plays in Ann Lee, Bo Li; by Old Mill"
    assert graph.in_words("film-1-0") == ""
    assert read_graph(triples, links).in_words("film-0-0") == ""


def test_without_links_items_are_entities(tmp_path: Path) -> None:
    triples, _ = write_graph(tmp_path)
    assert read_graph(triples).of("m.00") == {
        ("by", "studio-0"), ("with", "unknown-0-0"),
        ("^plays in", "star-0-0"), ("^plays in", "star-0-1"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [("a\tb\tc\na b c\n", "line 2"), ("a\tb\t\n", "line 1"), ("a\tb\tc\td\n", "not 3 fields")],
)
def test_a_broken_line_is_told_with_its_number(tmp_path: Path, text: str, told: str) -> None:
    broken = tmp_path / "broken.tsv"
    broken.write_text(text)
    with pytest.raises(DatasetError, match=told):
        read_graph(broken)


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "graph.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_graph(tmp_path / "graph.bin")


def test_a_graph_of_other_names_or_too_many_dimensions_is_told(tmp_path: Path) -> None:
    graph = read_graph(*write_graph(tmp_path))
    with pytest.raises(SettingsError, match="0 items share 0 pairs"):
        graph_vectors(graph, ["book-1", "book-2"], 2, seed=1)
    with pytest.raises(SettingsError, match="too few for 64 dimensions"):
        graph_vectors(graph, [f"film-0-{n}" for n in range(EACH)], 64, seed=1)
