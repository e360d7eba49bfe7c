"""How a round makes way for the stream on the cores they share (decision 0014).

Niceness divides a contended core, but whoever waits still waits for the other's time slice.  Under
Linux' idle policy a round runs only while nobody else wants the core, and is put aside the moment
somebody does.  The price: on a machine that is busy all the time, it hardly learns.
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from typing import Literal

Scheduling = Literal["normal", "batch", "idle"]


@dataclass(frozen=True, slots=True)
class Priority:
    """Niceness, 0 to 19, and scheduling policy of a thread."""

    nice: int
    scheduling: Scheduling

    def apply(self) -> None:
        """Give it to the calling thread and to threads that it will start.

        Where the system does not know threads' priorities, or forbids, nothing changes.
        """
        thread = threading.get_native_id()
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, thread, self.nice)
        with contextlib.suppress(OSError, AttributeError):
            policies = {"batch": os.SCHED_BATCH, "idle": os.SCHED_IDLE}
            if self.scheduling in policies:
                os.sched_setscheduler(thread, policies[self.scheduling], os.sched_param(0))
