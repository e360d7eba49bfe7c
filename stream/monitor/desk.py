"""What stands in the topics `items` and `labels`: texts by item, and what people said of them.

A label may come before its item or months after, so the texts of all items are kept, as workers
keep them.  Labels are never merged into anything: at a swap, and when enough of them are new, heads
are trained from all that stand, and one that was taken back is gone with the next head.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from profiles.item_text import TextOf
from profiles.items import Item
from profiles.opinions import Label

LABELLED = 5_000
"""Most labelled texts that a head is trained on, the newest: more take time at a swap."""


@dataclass(frozen=True, slots=True)
class Story:
    """An item as the monitor needs it.  `entity` is empty where it names none."""

    item_id: str
    entity: str
    title: str
    text: str


class Desk:
    """Stories and labels by item.  Not safe for threads."""

    def __init__(self, text_of: TextOf, entity_attribute: str) -> None:
        self._text_of, self._attribute = text_of, entity_attribute
        self._texts: dict[str, str] = {}
        self._labels: dict[str, Label] = {}
        self.changed = 0
        """Labels that came or went since `taken` was called."""

    def put(self, item: Item) -> Story | None:
        """Keep an item's text.  Returns: the story, where the item was not there before.

        An item that is changed later is not news a second time.
        """
        is_new = item.item_id not in self._texts
        text = self._texts[item.item_id] = self._text_of(item)
        value = item.attributes.get(self._attribute)
        entity = "" if value is None else str(value)
        return Story(item.item_id, entity, item.title, text) if is_new else None

    def withdraw(self, item_id: str) -> None:
        """The item is gone; its label, if it had one, teaches no more."""
        self._texts.pop(item_id, None)

    def label(self, label: Label) -> None:
        """Keep what was said, in place of what was said of the item before."""
        if self._labels.pop(label.item_id, None) != label:
            self.changed += 1
        self._labels[label.item_id] = label

    def unlabel(self, item_id: str) -> None:
        """A label was taken back."""
        if self._labels.pop(item_id, None) is not None:
            self.changed += 1

    def taken(self) -> None:
        """Heads have been trained from what stands now."""
        self.changed = 0

    @property
    def labels(self) -> int:
        """Labels whose item is known."""
        return sum(item in self._texts for item in self._labels)

    def sentiments(self) -> list[tuple[str, str]]:
        """(class, text) of the newest labels, oldest first."""
        return self._labelled({item: each.sentiment for item, each in self._labels.items()})

    def topics(self, at_least: int) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
        """Topics that at least so many labels name, and (topic, text) of those."""
        found = self._labelled({item: each.topic for item, each in self._labels.items()})
        counts = Counter(topic for topic, _ in found)
        names = tuple(sorted(topic for topic, count in counts.items() if count >= at_least))
        return names, [pair for pair in found if pair[0] in names]

    def _labelled(self, said: dict[str, str | None]) -> list[tuple[str, str]]:
        pairs = [
            (name, self._texts[item])
            for item, name in said.items()
            if name is not None and item in self._texts
        ]
        return pairs[-LABELLED:]
