"""Answers of workers, out of the one reader that fills the read model: nothing is read twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from profiles.topics import Topics
from stream.api.feed import Take
from stream.api.read_model import ReadModel
from stream.client.reading import AnswerDesk
from stream.key_feed import KEY_WAIT_S

if TYPE_CHECKING:
    from stream.chunks import Record  # which would import Faust

LOOK_AGAIN_S = 0.02


def answer_desk(model: ReadModel) -> AnswerDesk:
    """A desk that opens answers with the model's keys; a new user's key may come after them."""

    async def unseal(user: bytes, payload: bytes) -> bytes:
        for _ in range(round(KEY_WAIT_S / LOOK_AGAIN_S)):
            if (found := model.opened_recommendation(user, payload)) is not None:
                return found
            await asyncio.sleep(LOOK_AGAIN_S)
        return b""

    return AnswerDesk(unseal)


def taken_by(model: ReadModel, desk: AnswerDesk, topics: Topics) -> Take:
    """Records into the model, and recommendations past the desk."""

    def take(topic: str, records: Sequence[Record]) -> None:
        model.take(topic, records)
        if topic == topics.recommendations:
            for record in records:
                desk.take(record)

    return take
