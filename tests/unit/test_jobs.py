"""A job of the learner that runs out of memory fails as one round; a defect stays a defect."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from learner.jobs import told_out_of_memory
from profiles.errors import LearnerError

pytestmark = pytest.mark.unit


def test_what_numpy_and_torch_raise_for_want_of_memory_is_a_failed_round() -> None:
    says = r"round 7 ran out of memory.*learner\.batch_users"
    with pytest.raises(LearnerError, match=says), told_out_of_memory(7):
        np.zeros(2**60, np.uint8)
    with pytest.raises(LearnerError, match="round 8 ran out of memory"), told_out_of_memory(8):
        torch.zeros(2**58)


def test_any_other_error_is_raised_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="shapes"), told_out_of_memory(1):
        raise RuntimeError("shapes differ")
