"""A release made ready to judge texts: verified as workers verify it, with heads of its own.

`Reader.read` fetches and checks a release, reads every labelled text with it and trains the heads;
the reading before it serves meanwhile.  A release that fails a check is refused by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from profiles.config import Settings
from profiles.errors import ModelError, ReleaseRefused
from profiles.expected import expected_by
from profiles.layers import Floats
from profiles.logs import get_logger
from profiles.registry import ReleaseStore
from profiles.release import Release, check_probe, open_release
from profiles.signing import check_signature, load_trusted
from stream.language_model import LanguageModel
from stream.monitor.classes import SEEDS, SENTIMENTS, ClassHead, Examples, train_head
from stream.monitor.desk import Desk, Story
from stream.monitor.windows import Opinion

log = get_logger("stream.monitor")

BATCH = 128
KEPT_VECTORS = 100_000
"""Of one release, the newest: heads are trained anew and history judged anew without reading it
again.  1.5 KB each with the bundled model."""
NEGATIVE = SENTIMENTS.index("negative")


@dataclass(frozen=True, slots=True)
class Reading:
    """One release with its heads.  `topics` is None until there are labels of two topics."""

    release: Release
    sentiment: ClassHead
    topics: ClassHead | None

    @property
    def release_id(self) -> str:
        return self.release.release_id


class Reader:
    """Makes readings, and opinions with them.  Raises: SettingsError, ReleaseError at the start."""

    def __init__(self, settings: Settings, language_model: LanguageModel, cache: Path) -> None:
        self._vectors: dict[str, dict[str, Floats]] = {}
        self._min_labels = settings.monitor.min_labels
        self._language_model = language_model
        self._store = ReleaseStore(settings.store.releases, cache)
        self._trusted = load_trusted(settings.security.trusted_keys)
        self._expected = expected_by(settings)

    async def read(self, release_id: str, desk: Desk) -> Reading:
        """Prepare a release with the labels that stand now.

        Raises: ReleaseRefused; ReleaseError where the store fails; ModelError.
        """
        desk.taken()
        release = await asyncio.to_thread(self._open, release_id)
        probes = list(release.manifest.probe_texts)
        try:
            seen = await self._language_model.encode(release.adapter_directory, probes, exact=True)
        except ModelError as error:
            raise ReleaseRefused("adapter-load", str(error)) from error
        check_probe(release, seen)
        return await self._with_heads(release, desk)

    async def again(self, reading: Reading, desk: Desk) -> Reading:
        """The same release with heads of the labels that stand now."""
        desk.taken()
        return await self._with_heads(reading.release, desk)

    async def opinions(
        self, reading: Reading, stories: Sequence[tuple[Story, float]]
    ) -> list[Opinion]:
        """What stories say, each with when it came (Unix seconds)."""
        if not stories:
            return []
        vectors = await self._encode(reading.release, [story.text for story, _ in stories])
        negative = reading.sentiment.probabilities(vectors, reading.release_id)[:, NEGATIVE]
        topics = [""] * len(stories)
        if reading.topics is not None:
            best = reading.topics.probabilities(vectors, reading.release_id).argmax(axis=1)
            topics = [reading.topics.names[at] for at in best]
        return [
            Opinion(story.item_id, story.entity, at_s, float(bad), topic, story.title)
            for (story, at_s), bad, topic in zip(stories, negative, topics, strict=True)
        ]

    async def _with_heads(self, release: Release, desk: Desk) -> Reading:
        sentiment = await self._head(release, SENTIMENTS, desk.sentiments(), SEEDS)
        assert sentiment is not None, "there are seed texts"
        names, labelled = desk.topics(self._min_labels)
        topics = await self._head(release, names, labelled, ()) if len(names) > 1 else None
        return Reading(release, sentiment, topics)

    async def _head(
        self,
        release: Release,
        names: Sequence[str],
        labelled: Sequence[tuple[str, str]],
        seeds: Sequence[tuple[str, str]],
    ) -> ClassHead | None:
        """A head of labels and seeds; of seeds alone, if any, where the labels teach nothing."""
        if len(labelled) < self._min_labels:
            labelled = ()
        texts = [text for _, text in (*labelled, *seeds)]
        if not texts:
            return None
        read = await self._encode(release, texts)
        cut = len(labelled)
        people = Examples.of(release.release_id, names, labelled, read[:cut])
        made_up = Examples.of(release.release_id, names, seeds, read[cut:])
        head = await asyncio.to_thread(train_head, people, made_up)
        if head.quality is not None and not head.quality.is_useful:
            log.warning(
                "labels teach nothing, seed texts alone are used",
                loss=head.quality.loss,
                prior_loss=head.quality.prior_loss,
                labels=cut,
            )
            return await self._head(release, names, (), seeds)
        return head

    async def _encode(self, release: Release, texts: Sequence[str]) -> Floats:
        """Shapes: -> (len(texts), T); what has been read before is not read again."""
        known = self._vectors.setdefault(release.release_id, {})
        # Copied, for what is prepared in the background may push out what is needed here.
        found = {text: known[text] for text in texts if text in known}
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        for start in range(0, len(missing), BATCH):
            part = missing[start : start + BATCH]
            vectors = await self._language_model.encode(release.adapter_directory, part)
            found.update(zip(part, vectors, strict=True))
        known.update((text, found[text]) for text in missing)
        for text in list(known)[: max(0, len(known) - KEPT_VECTORS)]:
            del known[text]
        # The release that serves, and the one that is prepared.
        for release_id in list(self._vectors)[:-2]:
            del self._vectors[release_id]
        return np.stack([found[text] for text in texts])

    def _open(self, release_id: str) -> Release:
        try:
            release = open_release(self._store.fetch(release_id), self._expected)
        except OSError as error:
            raise ReleaseRefused("unreadable", f"{release_id} cannot be read: {error}") from error
        if release.release_id != release_id:
            raise ReleaseRefused("name", f"{release_id} holds {release.release_id}")
        check_signature(release.manifest, self._trusted)
        return release
