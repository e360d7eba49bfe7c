"""What every section of the settings shares."""

from __future__ import annotations

from pydantic import ConfigDict

FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
