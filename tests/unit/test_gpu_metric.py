"""GPU memory is told where torch uses one, and CUDA is not woken to ask."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from learner.service import tell_gpu
from profiles.metrics import LearnerMetrics

pytestmark = pytest.mark.unit


def told(monkeypatch: pytest.MonkeyPatch, is_initialized: bool) -> dict[str, float | None]:
    cuda = SimpleNamespace(
        is_initialized=lambda: is_initialized,
        memory_allocated=lambda: 300,
        memory_reserved=lambda: 500,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    metrics = LearnerMetrics(CollectorRegistry())
    tell_gpu(metrics)
    return {
        kind: metrics.registry.get_sample_value("driftline_learner_gpu_bytes", {"kind": kind})
        for kind in ("used", "reserved")
    }


def test_memory_of_a_gpu_in_use_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch, is_initialized=True) == {"used": 300, "reserved": 500}


def test_without_a_gpu_in_use_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch, is_initialized=False) == {"used": None, "reserved": None}
    monkeypatch.delitem(sys.modules, "torch")
    tell_gpu(LearnerMetrics(CollectorRegistry()))
