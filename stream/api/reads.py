"""Routes that read: from the read model, or by asking a worker."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from profiles.answers import MAX_K, Filters, Recommendation
from profiles.wire import MAX_ID_LENGTH, MAX_TAGS, check_key
from stream.api.bodies import json_response
from stream.api.document import answers
from stream.api.guard import problem
from stream.api.parts import Parts
from stream.api.views import Items, Profile, Releases

UserId = Annotated[str, Path(min_length=1, max_length=MAX_ID_LENGTH, description="the user's id")]
Tags = Annotated[list[str], Query(max_length=MAX_TAGS)]
Named = Annotated[
    list[str], Query(min_length=1, max_length=MAX_K, description="item ids, the parameter repeated")
]
Excluded = Annotated[list[str], Query(max_length=1_000, description="item ids to leave out")]


def read_routes(parts: Parts) -> APIRouter:
    """What the topics say now."""
    router = APIRouter()
    model, api, serving = parts.model, parts.settings.api, parts.settings.serving

    @router.get(
        "/v1/recommendations/{user_id:anything}",
        summary="What to recommend to a user now",
        response_class=Response,
        responses=answers(Recommendation, 422, 503, 504),
    )
    async def recommendations(
        user_id: UserId,
        k: Annotated[int | None, Query(ge=1, le=MAX_K)] = None,
        any_tag: Tags = [],  # noqa: B006  # FastAPI copies it
        no_tag: Tags = [],  # noqa: B006
        exclude: Excluded = [],  # noqa: B006
        exclude_seen: bool | None = None,
        diversity: Annotated[float | None, Query(ge=0, le=1)] = None,
        freshness: Annotated[float | None, Query(ge=0, le=100)] = None,
        unavailable: Annotated[bool, Query(description="also what is sold out")] = False,
        fresh: Annotated[bool, Query(description="ask a worker even if one is at hand")] = False,
    ) -> Response:
        """The newest recommendation that a worker made for the user.

        A worker is asked, and the answer awaited, if none is at hand, for `fresh`, and for any
        `k`, tags, exclusions, diversity, freshness or `unavailable`.
        """
        check_key(user_id)
        asked = (k, exclude_seen, diversity, freshness)
        lists = (any_tag, no_tag, exclude)
        chosen = unavailable or any(one is not None for one in asked) or any(lists)
        if not (chosen or fresh) and (newest := model.recommendation(user_id)) is not None:
            return json_response(newest)
        seen = serving.exclude_seen if exclude_seen is None else exclude_seen
        answer = await parts.client.recommend(
            user_id,
            serving.k if k is None else k,
            filters=Filters(any_tag, no_tag, seen, diversity, freshness, unavailable),
            exclude=exclude,
            timeout_s=api.answer_timeout_s,
        )
        return json_response(answer)

    @router.get(
        "/v1/predictions/{user_id:anything}",
        summary="How likely a user likes given items",
        response_class=Response,
        responses=answers(Recommendation, 409, 422, 503, 504),
    )
    async def predictions(user_id: UserId, item: Named) -> Response:
        """The items, the most likely first, each with the probability that an act of the user on
        it would be a positive one (a click, a purchase; `learner.positive_actions`).

        A worker is asked. Items that the catalogue does not have, or that are blocked, are not in
        the answer. 409: the serving release gives no probabilities.
        """
        check_key(user_id)
        answer = await parts.client.predict(user_id, item, timeout_s=api.answer_timeout_s)
        return json_response(answer)

    @router.get(
        "/v1/profiles/{user_id:anything}",
        summary="A user's profile",
        response_class=Response,
        responses=answers(Profile, 404, 422, 503),
    )
    async def profiles(user_id: UserId) -> Response:
        """History, tags and declared interests, from the newest record of the changelog."""
        check_key(user_id)
        profile = model.profile(user_id)
        if profile is None:
            return problem(
                404,
                "no-profile",
                f"this user is not among the {api.users} whose profiles changed last (api.users)",
            )
        return json_response(profile)

    @router.get(
        "/v1/items",
        summary="Search the catalogue",
        response_class=Response,
        responses=answers(Items, 422),
    )
    async def items(
        q: Annotated[str, Query(max_length=200, description="in title, id or tags")] = "",
        limit: Annotated[int, Query(ge=1, le=200)] = 20,
    ) -> Response:
        """Items that hold a text, whatever its case; all of them without one."""
        return json_response(model.items(q, limit))

    @router.get(
        "/v1/releases",
        summary="Every release and its status",
        response_class=Response,
        responses=answers(Releases),
    )
    async def releases() -> Response:
        """The newest notice of each, newest first, with parent, metrics and the reason given."""
        return json_response(model.releases())

    return router
