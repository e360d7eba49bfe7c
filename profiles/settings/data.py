"""What an application's data is called, and how its items are read."""

from __future__ import annotations

from string import Formatter

from pydantic import BaseModel, Field, field_validator

from profiles.settings.base import FROZEN

ITEM_FIELDS = ("title", "tags", "text")


class DataSettings(BaseModel):
    """How items become text, and foreign events ours.  Workers and learner must agree."""

    model_config = FROZEN

    item_text: tuple[str, ...] = Field(
        ("{title}", "{tags}", "{text}"),
        description="what the language model reads of an item: parts with {title}, {tags}, {text} "
        "or {attributes.NAME}; a part one of whose fields is empty is left out; joined by '. '",
    )
    event_names: dict[str, str] = Field(
        {}, description="for `driftline import`: an act's name in the file, in lower case = action"
    )

    picture_encoder: str = Field(
        "",
        description="vision model that `driftline items pictures` reads with: a directory or a "
        "transformers hub name",
    )
    picture_vector: str = Field(
        "image", description="under which name of model.vectors it puts what it saw"
    )
    graph_vector: str = Field("graph", description="the same for `driftline items graph`")

    @field_validator("item_text")
    @classmethod
    def _check_parts(cls, parts: tuple[str, ...]) -> tuple[str, ...]:
        if not parts:
            raise ValueError("item_text is empty: name at least one part")
        for part in parts:
            try:
                parsed = list(Formatter().parse(part))
            except ValueError as error:
                raise ValueError(f"{part!r}: {error}") from error
            if "{{" in part or "}}" in part:
                raise ValueError(f"{part!r}: braces only stand around fields")
            for _, field, spec, conversion in parsed:
                if field is None:
                    continue
                if spec or conversion:
                    raise ValueError(f"{part!r}: only plain fields such as {{title}} are known")
                if field not in ITEM_FIELDS and not field.startswith("attributes."):
                    raise ValueError(
                        f"{part!r} names {field!r}; an item has {', '.join(ITEM_FIELDS)} and "
                        "attributes.NAME"
                    )
        return parts
