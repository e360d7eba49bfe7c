"""Business rules: what may be recommended, and how far lists are varied and new items preferred.

One TOML file (`serving.rules`), read by `stream.rules_feed` whenever it changes.  Filters take
items out before anything is ranked.  Diversity and freshness choose among the best `pool` items:

    slot by slot the highest of   (1 - s) · relevance - s · likeness to the slots above   (MMR)
    relevance                     score + boost · 0.5^(age / half life), scaled to 0..1 in the pool

They only choose and order: the score in a recommendation stays the model's, so a reader (and
`driftline oracle`) can still recompute it, and `rank` says where score and trend alone would
have put the item.

Source: Carbonell & Goldstein 1998, "The use of MMR, diversity-based reranking".
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, ValidationError

from profiles.catalog import Catalog, Rows
from profiles.errors import SettingsError
from profiles.growing import with_room
from profiles.layers import Floats
from profiles.scoring import Ranked
from profiles.settings.base import FROZEN


class FilterRules(BaseModel):
    """What is never recommended, whoever asks."""

    model_config = FROZEN

    any_tags: tuple[str, ...] = Field((), description="only items with one of these; none: all")
    no_tags: tuple[str, ...] = Field((), description="no items with one of these")
    exclude: tuple[str, ...] = Field((), description="item ids")
    exclude_seen: bool | None = Field(None, description="in place of serving.exclude_seen")


class DiversityRules(BaseModel):
    """How unlike each other the items of a list should be."""

    model_config = FROZEN

    strength: float = Field(0.0, ge=0, le=1, description="0 none, 1 nothing but difference")
    pool: int = Field(50, ge=1, le=1000, description="best items that are chosen from")


class FreshnessRules(BaseModel):
    """How far new items are preferred.  An item without the attribute gets no boost."""

    model_config = FROZEN

    boost: float = Field(0.0, ge=0, le=100, description="added to the score of an item of age 0")
    half_life_s: float = Field(604_800.0, gt=0, description="age at which half of it is left")
    attribute: str = Field("published_at", description="item attribute with Unix seconds")


class Rules(BaseModel):
    """The whole file."""

    model_config = FROZEN

    filters: FilterRules = FilterRules()
    diversity: DiversityRules = DiversityRules()
    freshness: FreshnessRules = FreshnessRules()


def read_rules(text: str, where: str | Path) -> Rules:
    """Rules of a file's text.  Raises: SettingsError that names every bad value."""
    try:
        return Rules.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"rules file {str(where)!r} is not TOML: {error}") from error
    except ValidationError as error:
        said = "\n".join(
            f"  {'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors()
        )
        raise SettingsError(
            f"these rules in {str(where)!r} are wrong:\n{said}\n(docs/how-to/rules.md lists all)"
        ) from error


@dataclass(slots=True)
class Ruling:
    """Rules laid over a catalogue; what follows from them is kept until the catalogue changes."""

    rules: Rules
    catalog: Catalog
    _version: int = -1
    _dated: int = -1
    _allowed: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    _published: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def allowed(self) -> npt.NDArray[np.bool_]:
        """Items that the filters leave.  Shapes: -> (N,)."""
        self._refresh()
        return self._allowed

    def boosts(self, rows: Rows, now_s: float, boost: float | None = None) -> Floats:
        """What is added to the scores of these items for being new; `boost` in place of the
        rules' own.  Any shape."""
        fresh = self.rules.freshness
        catalog = self.catalog
        if self._dated != catalog.version:
            self._published = with_room(self._published, len(catalog))
            # Those that were put since: all of a large catalogue would hold events up.
            changed = np.flatnonzero(catalog.versions > self._dated)
            items = [catalog.items[row] for row in changed.tolist()]
            moments = [_moment(item.attributes.get(fresh.attribute)) for item in items]
            self._published[changed] = moments
            self._dated = catalog.version
        age_s = np.maximum(now_s - self._published[rows], 0.0)
        most = fresh.boost if boost is None else boost
        out: Floats = (most * 0.5 ** (age_s / fresh.half_life_s)).astype(np.float32)
        return out

    def _refresh(self) -> None:
        catalog, filters = self.catalog, self.rules.filters
        if self._version == catalog.version:
            return
        allowed = np.ones(len(catalog), np.bool_)
        if filters.any_tags:
            allowed &= catalog.with_tags(filters.any_tags)
        if filters.no_tags:
            allowed &= ~catalog.with_tags(filters.no_tags)
        allowed[[catalog.rows[item] for item in filters.exclude if item in catalog.rows]] = False
        self._allowed = allowed
        self._version = catalog.version


def _moment(value: object) -> float:
    """Unix seconds of an attribute; what is none lies infinitely far back.

    >>> _moment(12), _moment("soon"), _moment(True)
    (12.0, -inf, -inf)
    """
    is_time = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_time else -np.inf  # type: ignore[arg-type]  # just looked at


def rerank(
    pool: Ranked, k: int, strength: float, boosts: Floats | None, vectors: Floats
) -> tuple[Ranked, Rows]:
    """Fill k slots from each user's pool, best first.

    Args:
        pool: best first, padded with row -1; `boosts`: of each item of it, or None.
    Shapes: pool, boosts (B, P), vectors (N, D) -> (B, k) with the scores of the pool, and the
    place of each item in it (B, k).
    """
    users, width = pool.rows.shape
    k = min(k, width)
    free = pool.rows >= 0
    worth = pool.scores if boosts is None else pool.scores + boosts
    least = np.where(free, worth, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    most = np.where(free, worth, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    span = np.maximum(most - least, 1e-9)
    relevance = np.where(free, (worth - np.where(np.isfinite(least), least, 0.0)) / span, 0.0)
    unit = vectors[pool.rows]
    unit = unit / np.maximum(np.linalg.norm(unit, axis=2, keepdims=True), 1e-9)
    likeness = np.zeros((users, width), np.float32)
    everyone = np.arange(users)
    places = np.zeros((users, k), np.intp)
    for slot in range(k):
        value = (1.0 - strength) * relevance - strength * likeness
        value[~free] = -np.inf
        chosen = value.argmax(axis=1)
        # With nothing free left, the first padding: it stands for no item, as before.
        chosen = np.where(free.any(axis=1), chosen, (pool.rows < 0).argmax(axis=1))
        places[:, slot] = chosen
        free[everyone, chosen] = False
        if strength:
            near = np.matmul(unit, unit[everyone, chosen][:, :, None])[:, :, 0]
            likeness = np.maximum(likeness, near) if slot else near
    return (
        Ranked(
            np.take_along_axis(pool.rows, places, axis=1),
            np.take_along_axis(pool.scores, places, axis=1),
        ),
        places,
    )


def pool_size(rules: Rules, k: int, *strengths: float) -> int:
    """How many items are ranked for a list of k: more only where something is chosen.

    >>> pool_size(Rules(), 10, 0.0, 0.0), pool_size(Rules(), 10, 0.5, 0.0)
    (10, 50)
    """
    return max(k, rules.diversity.pool) if any(strengths) else k
