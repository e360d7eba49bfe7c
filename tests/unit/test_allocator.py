"""The allocator's settings: taken by this C library, or left alone."""

from __future__ import annotations

import platform

import pytest

from stream.allocator import keep_freed_memory

pytestmark = pytest.mark.unit


def test_glibc_takes_the_settings() -> None:
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
