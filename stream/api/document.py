"""The OpenAPI document's parts that FastAPI cannot know: schemas from msgspec, examples, the token.

`driftline serve` shows the whole at /openapi.json; docs/reference/openapi.json is a copy.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import msgspec

from profiles.answers import Reason, Recommendation, ScoredItem
from profiles.items import User
from profiles.notices import PolicyOrder, ReleaseNotice
from stream.api.views import (
    VIEWS,
    Accepted,
    CatalogueItem,
    Declared,
    ErasureAccepted,
    ErasureIn,
    EventIn,
    Items,
    PastEvent,
    Problem,
    Profile,
    Releases,
)

Json = dict[str, Any]  # Any: parts of an OpenAPI document

DESCRIPTION = (
    "Recommendations, profiles and releases as the topics have them now, and a way to write events "
    "without a Kafka client. With a token configured, every route under /v1 wants "
    "`Authorization: Bearer <token>`."
)
REFUSALS = {
    401: "No token, or a wrong one",
    403: "Another host's name or another origin",
    404: "Not known here",
    409: "Not as things stand; the body says why",
    413: "The body is too large",
    415: "The body is not application/json",
    429: "Too many requests of this client; `Retry-After` says when to come back",
    422: "The request breaks the contract; the body says where",
    503: "Kafka does not answer",
    504: "No worker answered in time",
}
_AT_S = 1_764_081_360.0
_REASON = Reason("history", 0.7, "tent-1", "Two-person tent", "outdoor")
EXAMPLES: dict[type[msgspec.Struct], msgspec.Struct] = {
    EventIn: EventIn(user_id="alice", item_id="tent-1", action="like"),
    Accepted: Accepted(["7f0c6a52c0b74f6c8f3d1f2b9d3c1a10"]),
    User: User("bob", "camping with children, light gear"),
    ErasureIn: ErasureIn("alice", "asked by letter"),
    Declared: Declared("alice"),
    ErasureAccepted: ErasureAccepted("0b8f6a52c0b74f6c8f3d1f2b9d3c1a11"),
    Recommendation: Recommendation(
        "5e0d0b1c2a3f4e5d6c7b8a9f0e1d2c3b", "alice",
        [ScoredItem("bag-1", 2.31, "Sleeping bag", [_REASON])],
        "r00002-0123456789abcdef", "r00002-0123456789abcdef", 7, "event", "e-17", 3, 1041, _AT_S,
        _AT_S - 0.02,
    ),
    Profile: Profile(
        "alice", 1, _AT_S, "r00002-0123456789abcdef", "camping with children",
        [PastEvent("tent-1", "Two-person tent", "like", _AT_S, 0.0, ["outdoor"])], {"outdoor": 1},
    ),
    Items: Items(1, [CatalogueItem("tent-1", "Two-person tent", ["outdoor"])]),
    Releases: Releases(
        "r00002-0123456789abcdef",
        [
            ReleaseNotice(
                "r00002-0123456789abcdef", "serving", 4, "data/releases",
                "r00001-fedcba9876543210", _AT_S, "no harm found in canary",
                {"recent_ndcg10_candidate": 0.11},
            )
        ],
        PolicyOrder("freeze", "releases", True, "incident 12", _AT_S),
    ),
    Problem: Problem("unknown-action", "action 'sneeze' has no weight; add it to the setting ..."),
}  # fmt: skip


def answers(kind: type[msgspec.Struct], *refusals: int, status: int = 200) -> dict[int | str, Json]:
    """The responses of a route: its value, and the ways in which it is refused."""
    good = {"description": "Done" if status == 202 else "Found", "content": _content(kind)}
    always = (401, 403, 429)
    return {
        status: good,
        **{
            code: {"description": REFUSALS[code], "content": _content(Problem)}
            for code in sorted((*always, *refusals))
        },
    }


def takes(kind: type[msgspec.Struct], many: bool = False) -> Json:
    """The body of a route; with `many`, one value or a list."""
    content = _content(kind)
    if many:
        one = content["application/json"]["schema"]
        several = {"type": "array", "items": one, "minItems": 1, "maxItems": 1000}
        content["application/json"]["schema"] = {"anyOf": [one, several]}
    return {"requestBody": {"required": True, "content": content}}


def components(with_token: bool, more: Sequence[type[msgspec.Struct]] = ()) -> Json:
    """Schemas of every body, and of more, by name; and the token, where there is one."""
    kinds = [*VIEWS, Recommendation, ReleaseNotice, User, *more]
    _, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    found: Json = {
        "schemas": {
            name: {**schema, "description": inspect.cleandoc(schema.get("description", ""))}
            for name, schema in sorted(schemas.items())
        }
    }
    if with_token:
        found["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return found


def _content(kind: type[msgspec.Struct]) -> Json:
    content: Json = {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}
    if kind in EXAMPLES:
        content["example"] = msgspec.to_builtins(EXAMPLES[kind])
    return {"application/json": content}
