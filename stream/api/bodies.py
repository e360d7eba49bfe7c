"""Bodies of requests and responses by msgspec, and errors of ours as responses.

So the API refuses what the topics refuse, in the same words.
"""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from profiles.errors import (
    BadMessage,
    DriftlineError,
    NoAnswerError,
    ReleaseError,
    SettingsError,
)
from stream.api.guard import problem


async def json_body(request: Request, kind: Any) -> Any:  # Any: a msgspec type, unions included
    """The JSON body as a value of ours.  Raises: HTTPException 415; BadMessage."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        # Also keeps out forms of other sites, which a browser would send without asking.
        raise HTTPException(415, f"content-type is {media!r}; send application/json")
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except msgspec.ValidationError as error:
        raise BadMessage("invalid", str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage("malformed", f"the body is not JSON: {error}") from error


def json_response(value: msgspec.Struct, status: int = 200) -> Response:
    """A value of ours as the body of a response."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def add_error_handlers(app: FastAPI) -> None:
    """Every error that is raised on purpose becomes a `Problem`."""
    app.add_exception_handler(DriftlineError, _refused)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, BadMessage):
        return problem(422, error.reason, str(error))
    if isinstance(error, ReleaseError):
        return problem(409, "release", str(error))
    if isinstance(error, SettingsError):
        return problem(409, "settings", str(error))
    if isinstance(error, NoAnswerError):
        return problem(504, "no-answer", str(error))
    return problem(503, "unavailable", str(error))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for it"
    told = problem(error.status_code, "http", str(error.detail))
    for name, value in (error.headers or {}).items():
        told.headers[name] = value
    return told


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError), "registered for it"
    said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return problem(422, "invalid", said)
