"""The READMEs: in step with each other, and with what the tool does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from profiles.config import Settings
from stream.command_reference import commands

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
ENGLISH = (ROOT / "README.md").read_text("utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text("utf-8")
BOTH = pytest.mark.parametrize("text", [ENGLISH, CHINESE], ids=["english", "chinese"])


def headings(text: str) -> list[int]:
    """Depths of the headings, in order."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [len(marks) for marks in re.findall(r"^(#+) ", outside, re.MULTILINE)]


def links(text: str) -> set[str]:
    """What a README links to in the repository, without anchors."""
    found = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    return {target for target in found if not target.startswith("http")}


def settings_rows(text: str) -> list[tuple[list[str], str]]:
    """The names of settings in a table, with the default that it gives."""
    rows = re.findall(r"^\| ((?:`[a-z_.]+`(?:, )?)+) \| ([^|]+) \|", text, re.MULTILINE)
    return [(re.findall(r"`([a-z_.]+)`", names), default.strip()) for names, default in rows]


def value(name: str) -> Any:  # Any: a setting's value
    found: Any = Settings()
    for part in name.split("."):
        found = getattr(found, part)
    return found


def test_both_have_the_same_sections() -> None:
    assert headings(CHINESE) == headings(ENGLISH)


def test_whatever_the_end_of_one_leads_to_the_other_leads_to_as_well() -> None:
    further, weiter = ENGLISH.rpartition("## Read on")[2], CHINESE.rpartition("## ")[2]
    assert links(further) == links(weiter)


@pytest.mark.parametrize("page", ["README.md", "benchmarks/README.md"])
def test_quality_stands_there_as_it_was_measured(page: str) -> None:
    """Over the best peer on all events: the mean and what it lies between."""
    text = (ROOT / page).read_text("utf-8")
    found = json.loads((ROOT / "benchmarks/results/quality.json").read_text("utf-8"))
    ratios = [bar for bar in found["bars"] if bar["slice"] == "all" and "/" in bar["what"]]
    assert len(ratios) == 3
    for bar in ratios:
        mean, low, high = (f"{bar[name]:.2f}" for name in ("mean", "low", "high"))
        precise = tuple(f"{bar[name]:.3f}" for name in ("mean", "low", "high"))
        told = re.sub(r"\s+", " ", text)
        assert f"{mean} ({low} to {high})" in told or "{} ({} to {})".format(*precise) in told


@BOTH
def test_every_link_leads_to_a_file(text: str) -> None:
    assert [target for target in links(text) if not (ROOT / target).exists()] == []


@BOTH
def test_every_command_that_is_named_exists(text: str) -> None:
    first = {words[0] for words in commands()}
    named = re.findall(r"(?:`|/bin/)driftline ([a-z]+)", text)
    assert len(named) > 5
    assert set(named) <= first


@BOTH
def test_the_defaults_that_are_given_are_the_defaults(text: str) -> None:
    rows = settings_rows(text)
    assert len(rows) > 5
    for names, default in rows:
        for name, given in zip(names, default.replace(" 000", "000").split(", "), strict=False):
            actual = value(name)
            if isinstance(actual, bool):
                assert given == str(actual).lower(), name
            elif isinstance(actual, int | float):
                assert float(given) == actual, name
            elif isinstance(actual, str) and given.startswith("`"):
                assert given.strip("`") == actual, name
