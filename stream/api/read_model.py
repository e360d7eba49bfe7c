"""What the topics say now, in bounded memory: the answers of the HTTP API.

    recommendations, profiles   newest of each user, raw bytes, of the `api.users` written last
    items                       the whole catalogue, ids, titles and tags only
    releases                    newest notice of each release

At the default of 20,000 users that is about 110 MB when every user has ten recommended items with
reasons (3 KB) and a full history (2 KB).  A user who is not among them has no profile here; for
recommendations a worker is asked instead.  Everything runs on the event loop: no locks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from profiles.answers import PREDICTION, Recommendation
from profiles.board import ReleaseBoard
from profiles.config import Settings
from profiles.errors import BadMessage
from profiles.fences import is_fence
from profiles.history import read_history
from profiles.items import decode_item
from profiles.key_store import KeyMap
from profiles.policies import PolicyBoard
from profiles.pseudonyms import Pseudonyms, names_of
from profiles.said import Tail, read_tail, text_key
from profiles.sealing import PROFILE, RECOMMENDATION, MasterKeys, is_sealed, no_key
from profiles.state import RecordLayout, Records, decode_records
from profiles.topics import Topics
from profiles.wire import decode_json, key64
from stream.api.newest import Newest
from stream.api.views import CatalogueItem, Items, PastEvent, Profile, Releases

if TYPE_CHECKING:
    from stream.chunks import Record  # which would import Faust


@dataclass(frozen=True, slots=True)
class Source:
    """A topic that is followed: from its beginning, or from so many records before its end."""

    topic: str
    newest: int | None


class ReadModel:
    """Takes records in, gives views out."""

    def __init__(self, settings: Settings) -> None:
        topics = Topics.under(settings.topics.prefix)
        self._topics = topics
        self._layout = RecordLayout.of(settings)
        # Numbered in this order by workers and learner.
        self._actions = sorted(settings.actions)
        self._recommendations: Newest[bytes, bytes] = Newest(settings.api.users)
        self._profiles: Newest[bytes, bytes] = Newest(settings.api.users)
        self._items: dict[str, CatalogueItem] = {}
        self._item_of: dict[int, str] = {}
        self._board = ReleaseBoard()
        service = MasterKeys.of(settings.privacy)
        self._names = Pseudonyms.of(settings.privacy)
        self._keys = None if service is None else KeyMap(service)
        keys = () if service is None else (Source(topics.keys, None),)
        self._policies = PolicyBoard()
        self.sources = (
            *keys,
            Source(topics.items, None),
            Source(topics.releases, None),
            Source(topics.policies, None),
            Source(topics.profiles, settings.api.users),
            Source(topics.recommendations, settings.api.users),
        )
        self._takers = {
            topics.items: self._take_item,
            topics.releases: self._take_notice,
            topics.policies: self._take_order,
            topics.profiles: self._take_profile,
            topics.recommendations: self._take_recommendation,
            topics.keys: self._take_key,
        }

    def take(self, topic: str, records: Sequence[Record]) -> None:
        """Take records of one topic in."""
        taker = self._takers[topic]
        for record in records:
            taker(record)

    def recommendation(self, user_id: str) -> Recommendation | None:
        """The newest recommendation to a user, if it is kept, without what was blocked since."""
        for name in names_of(self._names, user_id):
            user = name.encode()
            payload = self.opened_recommendation(user, self._recommendations.get(user))
            if payload is None:
                continue
            found = decode_json(payload, Recommendation)
            if found.cause == PREDICTION:
                return None  # the newest answer, and no recommendation
            allowed = [item for item in found.items if not self._is_blocked(item.item_id)]
            if allowed or not found.items:
                return msgspec.structs.replace(found, user_id=user_id, items=allowed)
        return None

    def profile(self, user_id: str) -> Profile | None:
        """The newest profile of a user, if it is kept.

        Raises: StoreCorruptError, SealError when these settings are not the workers'.
        """
        stored = self.stored(user_id)
        if stored is None:
            return None
        records, tail = stored
        words = {text_key(text): text for text in tail.texts}
        history = read_history(records)
        past = [
            self._past(*columns, words)
            for columns in zip(
                history.items[0].tolist(),
                history.actions[0].tolist(),
                history.ts[0].tolist(),
                history.values[0].tolist(),
                strict=True,
            )
        ][::-1]
        tags = Counter(tag for event in past for tag in event.tags)
        key = int(records["release"][0])
        return Profile(
            user_id,
            int(records["events"][0]),
            float(records["last_ts"][0]),
            next((n.release_id for n in self._board.all() if key64(n.release_id) == key), ""),
            tail.interests,
            past,
            dict(tags.most_common()),
        )

    def stored(self, user_id: str) -> tuple[Records, Tail] | None:
        """The same as it is stored: one record, and what follows it.  Raises as `profile`."""
        payload = None
        for name in names_of(self._names, user_id):
            user = name.encode()
            payload = payload or self._opened(PROFILE, user, self._profiles.get(user))
        if payload is None:
            return None
        records, (rest,) = decode_records(self._layout, [payload])
        return records, read_tail(rest)

    @property
    def board(self) -> ReleaseBoard:
        """Every release's newest notice."""
        return self._board

    @property
    def policies(self) -> PolicyBoard:
        """What people ordered."""
        return self._policies

    def releases(self) -> Releases:
        """Every release, newest notice first."""
        serving = self._board.serving()
        newest_first = self._board.all()[::-1]
        return Releases(
            serving.release_id if serving else None, newest_first, self._policies.freeze
        )

    def items(self, text: str, limit: int) -> Items:
        """Items whose title, id or tags hold a text, in the catalogue's order."""
        wanted = text.casefold()
        found = (
            item
            for item in self._items.values()
            if wanted in "\n".join((item.title, item.item_id, *item.tags)).casefold()
        )
        return Items(len(self._items), [item for item, _ in zip(found, range(limit), strict=False)])

    def users(self, count: int) -> list[str]:
        """Whose profile changed last, newest first."""
        return [user.decode("utf-8", "replace") for user in self._profiles.newest_first(count)]

    def _past(
        self, key: int, action: int, ts: float, value: float, words: Mapping[int, str]
    ) -> PastEvent:
        item = self._items.get(self._item_of.get(key, ""), CatalogueItem("", "", []))
        name = self._actions[action] if action < len(self._actions) else ""
        text = words.get(key, "")
        return PastEvent(item.item_id, item.title, name, ts, value, item.tags, text)

    def _take_item(self, record: Record) -> None:
        item_id = (record.key or b"").decode("utf-8", "replace")
        if not record.value:
            self._items.pop(item_id, None)
            self._item_of.pop(key64(item_id), None)
            return
        try:
            item = decode_item(record.value)
        except BadMessage:
            return  # the workers dead-letter it
        self._items[item.item_id] = CatalogueItem(item.item_id, item.title, item.tags)
        self._item_of[key64(item.item_id)] = item.item_id

    def _is_blocked(self, item_id: str) -> bool:
        item = self._items.get(item_id)
        return self._policies.bars(item_id, item.tags if item is not None else ())

    def _take_order(self, record: Record) -> None:
        self._policies.put_payload(record.key, record.value)

    def _take_notice(self, record: Record) -> None:
        self._board.put_payload(record.value)

    def name_of(self, user_id: str) -> str:
        """What stands for a user in the topics."""
        return names_of(self._names, user_id)[0]

    def opened_recommendation(self, user: bytes, payload: bytes | None) -> bytes | None:
        """A recommendation as the worker made it; None once its user's key is gone."""
        return self._opened(RECOMMENDATION, user, payload)

    def _opened(self, purpose: bytes, user: bytes, payload: bytes | None) -> bytes | None:
        if self._keys is not None:
            return self._keys.sealer.open(purpose, user, payload)
        if is_sealed(payload):
            raise no_key()
        return payload

    def _take_key(self, record: Record) -> None:
        assert self._keys is not None, "keys are followed only where there is a master key"
        self._keys.take(record.key, record.value)

    def _take_profile(self, record: Record) -> None:
        if not is_fence(record.key or b""):  # of an erased user
            _keep(self._profiles, record)

    def _take_recommendation(self, record: Record) -> None:
        _keep(self._recommendations, record)


def _keep(newest: Newest[bytes, bytes], record: Record) -> None:
    """A tombstone says that the user was erased."""
    if record.key is None:
        return
    if record.value:
        newest.put(record.key, record.value)
    else:
        newest.drop(record.key)
