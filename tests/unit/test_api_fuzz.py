"""Schemathesis reads the OpenAPI document and tries to break the API: no 500, nothing undocumented.

The console's routes that answer JSON are among them.

Requests are drawn from a fixed seed, as all Hypothesis tests here.
"""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from profiles.config import Settings
from profiles.notices import PolicyOrder
from profiles.settings.access import SecuritySettings
from stream.api.app import create_app
from stream.api.parts import Parts
from stream.console.routes import console_router
from stream.console.signs import DeadLetter, DeadLetters
from stream.console.views import VIEWS
from stream.dead_letters import Replayed
from tests.unit.test_api import TOKEN, FakeClient, with_api
from tests.unit.test_console import FakeDesk, console_parts

pytestmark = pytest.mark.unit

SETTINGS = with_api(Settings(security=SecuritySettings(http_requests_per_s=0)), TOKEN)
CONSOLE = console_parts(FakeDesk(), SETTINGS)
APP = create_app(
    Parts(SETTINGS, CONSOLE.model, FakeClient(), lambda: None),
    console_router(CONSOLE, in_document=True),
    views=(*VIEWS, DeadLetter, DeadLetters, Replayed, PolicyOrder),
)
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", APP)


@SCHEMA.parametrize()
@settings(max_examples=8)
def test_no_request_breaks_the_api_or_is_answered_beyond_its_document(
    case: schemathesis.Case[Any],  # Any: its own kind of operation
) -> None:
    case.call_and_validate(
        headers={"Authorization": f"Bearer {TOKEN}"},
        # Actions are a setting, and ids hold no NUL: a schema says neither.
        excluded_checks=[positive_data_acceptance],
    )
