"""The contract in writing: JSON Schemas, an AsyncAPI and an OpenAPI document, four reference pages.

    python -m stream.contracts           # writes docs/reference/
    python -m stream.contracts --check   # says which files are out of date, and exits 1

All of it is generated from the code (`profiles.events`, `profiles.topics`, `profiles.config`,
`profiles.metrics`, `stream.api`, `stream.cli`), and a unit test runs the check: the code is the
contract, the files are for those who write an application in another language.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import inspect
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from profiles.answers import Recommendation, Request
from profiles.erasures import Erasure, Receipt
from profiles.events import Event, Saying
from profiles.items import Item, User
from profiles.notices import OutcomeWindow, PolicyOrder, ReleaseNotice
from profiles.opinions import Alert, Label
from profiles.topics import DEAD_LETTERED, DEFAULT_PREFIX, Topics, topic_specs
from stream.api.app import openapi_document
from stream.command_reference import cli_page
from stream.reference import metrics_page, settings_page
from stream.topic_reference import topics_page

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

# Any: a JSON document; its shape is JSON Schema's and AsyncAPI's business.
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Channel:
    """A topic as an application sees it.  `message` is None where the payload is not JSON."""

    entity: str
    message: type[msgspec.Struct] | None
    from_application: bool | None  # True: applications write it; None: driftline's own affair
    summary: str
    also: tuple[type[msgspec.Struct], ...] = ()

    @property
    def messages(self) -> tuple[type[msgspec.Struct], ...]:
        """Every kind of message, the usual one first."""
        return () if self.message is None else (self.message, *self.also)


CHANNELS = (
    Channel("events", Event, True, "What users do.", (Saying,)),
    Channel("items", Item, True, "What can be recommended; a tombstone removes an item."),
    Channel("users", User, True, "What users say about themselves; a tombstone forgets it."),
    Channel("requests", Request, True, "Asks for recommendations now."),
    Channel("erasures", Erasure, True, "Asks to forget a user."),
    Channel("recommendations", Recommendation, False, "Answers, to events and requests."),
    Channel("receipts", Receipt, False, "What was erased, where and when."),
    Channel("labels", Label, True, "What people say that items say; for the monitor."),
    Channel("alerts", Alert, False, "Opinion of an entity turned bad, or that is over."),
    Channel("releases", ReleaseNotice, None, "Which model release serves."),
    Channel("outcomes", OutcomeWindow, None, "How releases do live, as sums."),
    Channel("policies", PolicyOrder, None, "What people ordered: blocks, a freeze."),
    Channel("profiles", None, None, "Changelog of the workers' stores; its bytes are internal."),
    Channel("keys", None, None, "Users' data keys, wrapped by the master key."),
)

CLOUD_EVENTS = {
    "ce_specversion": "1.0",
    "ce_id": "the message's own id",
    "ce_type": "driftline.<entity>.<action>.v1",
    "ce_source": "which application sent it",
    "ce_time": "RFC 3339 time of the occurrence",
}


def schemas() -> dict[str, Json]:
    """JSON Schema of every message and what it holds, by name, referring to each other."""
    messages = [message for channel in CHANNELS for message in channel.messages]
    _, components = msgspec.json.schema_components(
        messages, ref_template="#/components/schemas/{name}"
    )
    return {name: _tidy(schema) for name, schema in sorted(components.items())}


def standalone(name: str) -> Json:
    """The schema of one message in a document of its own, what it refers to included."""
    kinds = {kind.__name__: kind for channel in CHANNELS for kind in channel.messages}
    _, components = msgspec.json.schema_components([kinds[name]], ref_template="#/$defs/{name}")
    own = _tidy(components.pop(name))
    document: Json = {"$schema": DIALECT, "$id": f"driftline/{name}.v1.json", **own}
    if components:
        document["$defs"] = {other: _tidy(components[other]) for other in sorted(components)}
    return document


def _tidy(schema: Json) -> Json:
    """A docstring indented as in the code becomes a text."""
    if "description" in schema:
        return {**schema, "description": inspect.cleandoc(schema["description"])}
    return schema


def asyncapi() -> Json:
    """The AsyncAPI 3 document, under the default prefix and the default number of partitions."""
    names = Topics.under()
    specs = {spec.name: spec for spec in topic_specs()}
    channels: Json = {}
    operations: Json = {}
    messages: Json = {}
    for channel in CHANNELS:
        spec = specs[getattr(names, channel.entity)]
        kafka: Json = {
            "topic": spec.name,
            "partitions": spec.partitions,
            "topicConfiguration": _topic_configuration(spec.settings),
            "bindingVersion": "0.5.0",
        }
        channels[channel.entity] = {
            "address": spec.name,
            "summary": channel.summary,
            "messages": {},
            "bindings": {"kafka": kafka},
        }
        if channel.message is None:
            continue
        for name in (message.__name__ for message in channel.messages):
            channels[channel.entity]["messages"][name] = {"$ref": f"#/components/messages/{name}"}
            messages[name] = {
                "name": name,
                "title": channel.summary,
                "contentType": "application/json",
                "headers": {"$ref": "#/components/schemas/CloudEventsHeaders"},
                "payload": {"$ref": f"#/components/schemas/{name}"},
                "bindings": {
                    "kafka": {
                        "key": {"type": "string", "description": f"the payload's {spec.key}"},
                        "bindingVersion": "0.5.0",
                    }
                },
            }
        if channel.from_application is not None:
            verb = "receive" if channel.from_application else "send"
            operations[f"{verb}{channel.entity.capitalize()}"] = {
                "action": verb,
                "channel": {"$ref": f"#/channels/{channel.entity}"},
                "summary": channel.summary,
            }
    headers: Json = {
        "type": "object",
        "description": "CloudEvents attributes in Kafka's binary mode; all optional.",
        "properties": {
            name: {"type": "string", "description": text} for name, text in CLOUD_EVENTS.items()
        },
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "driftline",
            "version": importlib.metadata.version("driftline"),
            "description": (
                f"Topics are `{DEFAULT_PREFIX}.<entity>.v1`; prefix and partitions are settings. "
                "Actions are driftline's: what it receives, applications send. "
                f"What cannot be used of {', '.join(DEAD_LETTERED)} goes to `<topic>.dlq`, bytes "
                "unchanged, with `__connect.errors.*` headers."
            ),
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": {**schemas(), "CloudEventsHeaders": headers},
        },
    }


def _topic_configuration(settings: Mapping[str, str]) -> Json:
    """The settings that the AsyncAPI Kafka binding knows, in the types it wants.

    >>> _topic_configuration({"cleanup.policy": "compact,delete", "retention.ms": "5", "x": "y"})
    {'cleanup.policy': ['compact', 'delete'], 'retention.ms': 5}
    """
    known: Json = {"cleanup.policy": settings["cleanup.policy"].split(",")}
    for name in ("retention.ms", "max.message.bytes"):
        if name in settings:
            known[name] = int(settings[name])
    return known


def documents() -> dict[str, str]:
    """Every generated file below docs/reference: its path and its text."""
    pages = {
        f"schemas/{message.__name__}.v1.json": _dump(standalone(message.__name__))
        for channel in CHANNELS
        for message in channel.messages
    }
    described = asyncapi()
    return {
        **pages,
        "asyncapi.json": _dump(described),
        "openapi.json": _dump(openapi_document()),
        "settings.md": settings_page(),
        "topics.md": topics_page(described),
        "cli.md": cli_page(),
        "metrics.md": metrics_page(),
    }


def outdated(folder: Path = REFERENCE) -> list[str]:
    """Which generated files are missing, differ from the code, or have no message any more."""
    expected = documents()
    stale = [
        name
        for name, text in expected.items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text
    ]
    present = (f"schemas/{path.name}" for path in (folder / "schemas").glob("*.json"))
    return sorted([*stale, *(name for name in present if name not in expected)])


def write(folder: Path = REFERENCE) -> list[str]:
    """Bring the files up to date.  Returns the names of those that changed."""
    changed = outdated(folder)
    expected = documents()
    for name in changed:
        path = folder / name
        if name in expected:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(expected[name], encoding="utf-8")
        else:
            path.unlink()
    return changed


def _dump(document: Json) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m stream.contracts", description="see module")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if outdated")
    check = parser.parse_args().check
    names = outdated() if check else write()
    for name in names:
        sys.stdout.write(f"{'outdated' if check else 'wrote'} {REFERENCE / name}\n")
    return 1 if check and names else 0


if __name__ == "__main__":
    sys.exit(main())
