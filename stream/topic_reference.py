"""docs/reference/topics.md: the AsyncAPI document for people, topic by topic, field by field."""

from __future__ import annotations

import json
from typing import Any

from stream.reference import NOTICE, table

# Any, here and below: a JSON document; its shape is JSON Schema's and AsyncAPI's business.
Json = dict[str, Any]

SHOWN_DEFAULT = 40
"""Letters: longer defaults are in the schema."""
WHO = {
    "receive": "Your applications write it.",
    "send": "driftline writes it, your applications read it.",
}


def topics_page(document: Json) -> str:
    """The page, from the AsyncAPI document."""
    schemas: Json = document["components"]["schemas"]
    roles = {
        operation["channel"]["$ref"].rpartition("/")[2]: operation["action"]
        for operation in document["operations"].values()
    }
    channels: Json = document["channels"]
    parts = [
        "# Topics",
        NOTICE,
        document["info"]["description"] + " For tools: [asyncapi.json](asyncapi.json), AsyncAPI 3.",
        table(
            ("topic", "what for", "partitions", "cleanup"), [_line(c) for c in channels.values()]
        ),
    ]
    used: list[str] = []
    for name, channel in channels.items():
        if not channel["messages"]:
            continue
        who = WHO.get(roles.get(name, ""), "driftline's own.")
        parts += [f"## {name}", f"`{channel['address']}`. {channel['summary']} {who}"]
        for message in channel["messages"]:
            parts += _message(message, schemas[message])
            used.append(message)
    others = [name for name in schemas if name not in {*used, "CloudEventsHeaders"}]
    parts.append("## Parts of messages")
    for name in others:
        parts += _fields(name, schemas[name])
    headers = schemas["CloudEventsHeaders"]
    rows = [(f"`{name}`", each["description"]) for name, each in headers["properties"].items()]
    parts += ["## Headers", headers["description"], table(("header", "meaning"), rows)]
    return "\n\n".join(parts) + "\n"


def _line(channel: Json) -> tuple[str, ...]:
    kafka = channel["bindings"]["kafka"]
    cleanup = ", ".join(kafka["topicConfiguration"]["cleanup.policy"])
    return f"`{channel['address']}`", channel["summary"], str(kafka["partitions"]), cleanup


def _message(name: str, schema: Json) -> list[str]:
    link = f"[JSON Schema](schemas/{name}.v1.json)"
    return [*_fields(name, schema), link]


def _fields(name: str, schema: Json) -> list[str]:
    required = schema.get("required", [])
    rows = [
        (f"`{field}`", _type(each), "yes" if field in required else "", _default(each))
        for field, each in schema.get("properties", {}).items()
    ]
    said = [schema["description"]] if "description" in schema else []
    return [f"### {name}", *said, table(("field", "type", "required", "default"), rows)]


def _type(schema: Json) -> str:
    """A type for people.

    >>> _type({"anyOf": [{"type": "string"}, {"type": "null"}]})
    'string or null'
    >>> _type({"type": "array", "items": {"$ref": "#/components/schemas/Reason"}})
    'list of Reason'
    """
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(each) for each in schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items') or {})}"
    if schema.get("type") == "object":
        inner = schema.get("additionalProperties")
        return f"object of {_type(inner)}" if isinstance(inner, dict) else "object"
    return str(schema.get("type", "anything"))


def _default(schema: Json) -> str:
    if "default" not in schema:
        return ""
    shown = f"`{json.dumps(schema['default'])}`"
    return shown if len(shown) <= SHOWN_DEFAULT else "in the schema"
