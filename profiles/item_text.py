"""What the language model reads of an item, by the parts that a domain names.

The default is title, tags, body (`Item.full_text`).  A domain may add attributes, as in
``by {attributes.brand}``: where an item lacks one, the whole part is left out, so that no item
reads "by .".  Every process that names a text must use the same parts: an item's vector is known
by a hash of its text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from string import Formatter

from profiles.items import Item
from profiles.settings.data import DataSettings

TextOf = Callable[[Item], str]


def item_text(data: DataSettings) -> TextOf:
    """The reader that these settings describe.

    >>> read = item_text(DataSettings(item_text=("{title}", "by {attributes.brand}", "{tags}")))
    >>> read(Item("t1", title="Tent", tags=["outdoor"], attributes={"brand": "Alp"}))
    'Tent. by Alp. outdoor'
    >>> read(Item("t2", title="Stove"))
    'Stove'
    """
    if data.item_text == DataSettings().item_text:
        return Item.full_text
    parts = [_parsed(part) for part in data.item_text]

    def read(item: Item) -> str:
        return ". ".join(text for part in parts if (text := _filled(part, item)))

    return read


def _parsed(part: str) -> list[tuple[str, str | None]]:
    """Literal texts, each with the field that follows it."""
    return [(literal, field) for literal, field, _, _ in Formatter().parse(part)]


def _filled(part: Sequence[tuple[str, str | None]], item: Item) -> str:
    """The part's text, nothing where a field of it is empty."""
    filled = []
    for literal, field in part:
        filled.append(literal)
        if field is not None:
            value = _value(item, field)
            if not value:
                return ""
            filled.append(value)
    return "".join(filled)


def _value(item: Item, field: str) -> str:
    if field == "tags":
        return ", ".join(item.tags)
    if field.startswith("attributes."):
        value = item.attributes.get(field.removeprefix("attributes."))
        return "" if value is None else str(value)
    return str(getattr(item, field))
