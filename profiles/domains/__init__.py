"""Domains: one TOML file makes driftline an application of a kind.

A domain file is a settings file that others are laid over: its tables are sections of `Settings`
(actions and their weights, how items are read, objective, serving rules, topics prefix), and a
table `[domain]` says what it is for.  The operator's own file wins over it, the environment over
both.  Five are shipped beside this file; any other is named by its path.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from profiles.errors import SettingsError


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[domain]`.  `words`: actions that carry text rather than meet an item."""

    name: str
    summary: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain file, read.  `settings`: sections as in a settings file, not yet checked."""

    about: About
    source: str
    settings: Mapping[str, Any]  # Any: TOML, which `load_settings` checks


def shipped() -> list[str]:
    """Names of the domains that come with the package."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name[: -len(".toml")] for file in files if file.name.endswith(".toml"))


def load_domain(named: str) -> Domain:
    """A shipped domain by its name, another by its file.

    Raises: SettingsError when there is none, or what is there is no domain file.
    """
    if named in shipped():
        source = f"{named} (shipped)"
        text = resources.files(__name__).joinpath(f"{named}.toml").read_text(encoding="utf-8")
    else:
        source = named
        try:
            text = Path(named).read_text(encoding="utf-8")
        except (FileNotFoundError, IsADirectoryError) as error:
            raise SettingsError(
                f"domain {named!r} is neither shipped ({', '.join(shipped())}) nor a file; "
                "`driftline domains list` says what each is for"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"domain file {named!r} cannot be read: {error}") from error
    try:
        values = tomllib.loads(text)
        about = msgspec.convert(values.pop("domain", {}), About)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"domain file {named!r} is not TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise SettingsError(
            f"domain file {named!r}: table [domain]: {error}; it needs a name and a summary"
        ) from error
    return Domain(about, source, values)


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Sections of two settings files, the second winning value by value.

    `actions` is replaced as a whole, as it is everywhere.

    >>> laid_over({"serving": {"k": 5, "reasons": 0}}, {"serving": {"k": 7}})
    {'serving': {'k': 7, 'reasons': 0}}
    """
    merged = dict(below)
    for section, values in above.items():
        lower = merged.get(section)
        if section != "actions" and isinstance(values, dict) and isinstance(lower, dict):
            merged[section] = {**lower, **values}
        else:
            merged[section] = values
    return merged
