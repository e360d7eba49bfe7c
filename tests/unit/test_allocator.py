"""The allocator's settings: taken by this C library, or left alone."""

from __future__ import annotations

import gc
import platform

import pytest

from stream.allocator import collect_seldom, keep_freed_memory

pytestmark = pytest.mark.unit


def test_glibc_takes_the_settings() -> None:
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")


def test_cycles_are_looked_for_seldom_but_still() -> None:
    before = gc.get_threshold()
    try:
        collect_seldom()
        assert gc.get_threshold()[0] > before[0]
        assert gc.isenabled()
    finally:
        gc.set_threshold(*before)
