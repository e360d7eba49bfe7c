"""The learner as one process or as several: `torchrun --nproc-per-node 2 -m stream learn`.

Rank 0 is the learner as ever (learner/service.py).  The others have neither Kafka nor the store:
they wait for a round, train it in step with rank 0 (learner/team.py), and wait for the next.
"""

from __future__ import annotations

import os
import signal
import threading

from learner.priority import Priority
from learner.round_types import RoundCancelled
from learner.service import run_learner
from learner.team import Team
from learner.trainer import SharedRound
from profiles.config import Settings
from profiles.errors import LearnerError
from profiles.logs import get_logger
from profiles.metrics import LearnerMetrics

log = get_logger("learner.distributed")


def run_learners(settings: Settings, stop: threading.Event, metrics: LearnerMetrics) -> None:
    """Learn until `stop` is set, alone or as one of the processes that torchrun started.

    Raises: as `run_learner`; RuntimeError when another process of the team is gone.
    """
    # Reading events into the buffer makes way, too; rounds step back further (learner/jobs.py).
    Priority(settings.learner.nice, "normal").apply()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        run_learner(settings, stop, metrics)
        return
    team = Team.join()
    log.info("learner's process joined", rank=team.rank, of=team.size)
    if team.leads:
        run_learner(settings, stop, metrics, team)
        team.tell(None)
    else:
        # torchrun passes on the signal that ends us to all at once; the leader needs us to the end
        # of its step, and then says so.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        Priority(settings.learner.nice, settings.learner.scheduling).apply()
        follow(team)
    team.leave()


def follow(team: Team) -> None:
    """Train whatever the leader trains, until it says that it is over."""
    while (work := team.listen()) is not None:
        assert isinstance(work, SharedRound), "the leader tells of rounds only"
        try:
            work.train(team)
        except (RoundCancelled, LearnerError) as error:
            # The leader, in step with us, has met the same and deals with it.
            log.info("round over without a candidate", why=repr(error))
