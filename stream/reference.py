"""The reference pages of settings and metrics, as Markdown, read off the code."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import annotated_types
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from profiles import metrics
from profiles.config import Settings

NOTICE = "<!-- written by `python -m stream.contracts`: change the code, not this file -->"


def settings_page() -> str:
    """docs/reference/settings.md: name, variable, type, default and meaning of every setting."""
    prefix = Settings.model_config.get("env_prefix", "")
    own: list[tuple[str, ...]] = []
    sections: list[str] = []
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            rows = [
                _setting(f"{prefix}{name}__{inner}".upper(), inner, detail)
                for inner, detail in kind.model_fields.items()
            ]
            summary = inspect.cleandoc(kind.__doc__ or "")
            sections.append(f"## [{name}]\n\n{summary}\n\n{table(SETTING_HEAD, rows)}")
        else:
            own.append(_setting(f"{prefix}{name}".upper(), name, field))
    opening = (
        "# Settings\n\n"
        f"{NOTICE}\n\n"
        "Strongest first: the options of the command line, environment variables, the TOML file "
        "named by `--config` or `DRIFTLINE_CONFIG`, the defaults below. Lists and tables are JSON "
        "in a variable. `DRIFTLINE_ACTIONS` (or `[actions]`) replaces the whole table of actions."
    )
    general = f"## Without a section\n\n{table(SETTING_HEAD, own)}"
    return "\n\n".join([opening, general, *sections]) + "\n"


def metrics_page() -> str:
    """docs/reference/metrics.md: name, type, labels and meaning of every metric."""
    parts = [f"# Metrics\n\n{NOTICE}\n\nSeconds and bytes; no label names a user or an item."]
    for name, kind in sorted(vars(metrics).items()):
        if not name.endswith("Metrics"):
            continue
        declared = kind(CollectorRegistry())
        rows = [
            _metric(metric)
            for metric in vars(declared).values()
            if isinstance(metric, MetricWrapperBase)
        ]
        summary = inspect.cleandoc(kind.__doc__ or "")
        parts.append(
            f"## {name.removesuffix('Metrics')}\n\n{summary}\n\n"
            f"{table(('metric', 'type', 'labels', 'meaning'), rows)}"
        )
    return "\n\n".join(parts) + "\n"


SETTING_HEAD = ("setting and its variable", "type", "default", "meaning")


def _setting(variable: str, name: str, field: FieldInfo) -> tuple[str, ...]:
    default = field.get_default(call_default_factory=True)
    limits = ", ".join(filter(None, (_limit(entry) for entry in field.metadata)))
    meaning = "; ".join(filter(None, (field.description, limits)))
    return f"`{name}`<br>`{variable}`", f"`{_kind(field.annotation)}`", _default(default), meaning


def _default(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict):
        return ", ".join(f"`{key} = {weight}`" for key, weight in value.items())
    if isinstance(value, tuple):
        return ", ".join(f"`{entry}`" for entry in value) or "none"
    if value == "":
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def _kind(annotation: Any) -> str:  # Any: an annotation is whatever Python lets it be
    """A type for people.

    >>> _kind(tuple[str, ...]), _kind(Literal["a", "b"]), _kind(Path | None)
    ('list of text', 'a or b', 'path')
    """
    names: dict[object, str] = {
        str: "text", int: "integer", float: "number", bool: "true or false", Path: "path",
        SecretStr: "secret",
    }  # fmt: skip
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_kind(part) for part in inside if part is not types.NoneType)
    if origin is Literal:
        return " or ".join(map(str, inside))
    if origin is tuple:
        return f"list of {_kind(inside[0])}"
    if origin is dict:
        return f"table of {_kind(inside[1])}"
    if origin is Annotated:
        return _kind(inside[0])
    return names.get(annotation) or str(getattr(annotation, "__name__", annotation))


def _limit(entry: object) -> str:
    """A bound for people.

    >>> _limit(annotated_types.Ge(1)), _limit(annotated_types.Lt(0.5))
    ('≥ 1', '< 0.5')
    """
    if isinstance(entry, annotated_types.Ge):
        return f"≥ {entry.ge}"
    if isinstance(entry, annotated_types.Gt):
        return f"> {entry.gt}"
    if isinstance(entry, annotated_types.Le):
        return f"≤ {entry.le}"
    if isinstance(entry, annotated_types.Lt):
        return f"< {entry.lt}"
    pattern = getattr(entry, "pattern", None)
    return f"matches `{pattern}`" if pattern else ""


def _metric(metric: MetricWrapperBase) -> tuple[str, ...]:
    (family,) = metric.describe()
    suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)
    return f"`{family.name}{suffix}`", family.type, labels, family.documentation


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )
