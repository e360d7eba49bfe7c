"""Orders on a real broker: a worker obeys them while it runs and from its first answer on."""

from __future__ import annotations

import asyncio

import pytest

from learner.releases_cli import promote
from learner.rollout.telling import in_words, read_status
from profiles.audit import AuditLog
from profiles.errors import ReleaseError, SettingsError
from stream.policy_desk import give_order, read_orders
from tests.deployment import Deployment, make_events, wait_until

pytestmark = pytest.mark.kafka


def test_a_block_reaches_a_running_worker_and_outlives_it(deployment: Deployment) -> None:
    settings = deployment.settings
    worker = deployment.start_worker(DRIFTLINE_SERVING__EXCLUDE_SEEN="false")
    worker.wait_ready()
    deployment.send_events(make_events(users=6, each=2))
    deployment.wait_committed(12)
    popular = deployment.recommendations()[-1].items[0].item_id
    asyncio.run(give_order(settings, "item", popular, active=True, reason="recalled"))
    asyncio.run(give_order(settings, "tag", "song", active=True))
    blocked = {item.item_id for item in deployment.items if "song" in item.tags} | {popular}

    def is_obeyed() -> bool:
        return worker.metric("driftline_catalogue_items_blocked") == len(blocked)

    wait_until("the worker obeys", is_obeyed)
    deployment.send_events(make_events(users=6, each=1, start=2))
    deployment.wait_committed(18)
    assert worker.stop() == 0
    again = deployment.start_worker(DRIFTLINE_SERVING__EXCLUDE_SEEN="false")
    again.wait_ready()
    deployment.send_events(make_events(users=6, each=1, start=3))
    deployment.wait_committed(24)
    late = {event.event_id for event in make_events(users=6, each=2, start=2)}
    later = [made for made in deployment.recommendations() if made.cause_id in late]
    assert len(later) >= len(late)
    assert all(made.items for made in later)
    assert not {item.item_id for made in later for item in made.items} & blocked

    with pytest.raises(SettingsError, match="nothing to lift"):
        asyncio.run(give_order(settings, "item", "never-blocked", active=False))
    asyncio.run(give_order(settings, "tag", "song", active=False))
    assert [order.target for order in read_orders(settings).all()] == [popular]
    lines = AuditLog.of(settings).path.read_text()
    assert '"act":"item ordered"' in lines
    assert '"act":"tag lifted"' in lines


def test_a_person_promotes_nothing_while_promotions_are_frozen(deployment: Deployment) -> None:
    settings, release = deployment.settings, deployment.new_release(seed=9)
    asyncio.run(give_order(settings, "freeze", "releases", active=True, reason="incident 12"))
    with pytest.raises(ReleaseError, match=r"frozen \(incident 12\).*releases unfreeze"):
        promote(settings, release, force=True)
    assert in_words(read_status(settings)).startswith("Promotions are frozen: incident 12.")
    asyncio.run(give_order(settings, "freeze", "releases", active=False))
    assert promote(settings, release).status == "serving"
