"""A channel layer that misbehaves as a real one may: it loses, repeats and reorders messages."""

import json
import random
from collections.abc import Callable
from typing import Any

from channels.exceptions import ChannelFull
from channels.layers import InMemoryChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer

Message = dict[str, Any]


def ends_a_run(message: Message) -> bool:
    """Whether `message` contains a terminal frame."""
    text = json.dumps(message, default=str)
    return any(
        mark in text.replace("\\", "").replace(" ", "")
        for mark in ('"type":"complete"', '"terminal":true')
    )


class Faults:
    """Applies faults, drawn from `seed`, to messages of one key by itself; rates are from 0 to 1.

    A reordered message is held until a later one has overtaken it, so the last one of a key may
    never arrive. `lose_last` is the rate for messages that contain a terminal frame.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        drop: float = 0.1,
        duplicate: float = 0.1,
        reorder: float = 0.1,
        lose_last: float = 0.5,
        is_last: Callable[[Message], bool] = ends_a_run,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.drop, self.duplicate, self.reorder = drop, duplicate, reorder
        self.lose_last = lose_last
        self.is_last = is_last
        self.counts = {"sent": 0, "dropped": 0, "duplicated": 0, "reordered": 0, "last_lost": 0}
        self._random = random.Random(seed)
        self._kept_back: dict[str, list[Message]] = {}

    def _suffer(self, key: str, message: Message) -> list[Message]:
        """Return the messages to deliver in place of `message`, in order."""
        self.counts["sent"] += 1
        if self.is_last(message) and self._happens(self.lose_last, "last_lost"):
            return []
        if self._happens(self.drop, "dropped"):
            return []
        if self._happens(self.reorder, "reordered"):
            self._kept_back.setdefault(key, []).append(message)
            return []
        copies = 2 if self._happens(self.duplicate, "duplicated") else 1
        return [message] * copies + self._kept_back.pop(key, [])

    def _happens(self, rate: float, what: str) -> bool:
        if self._random.random() >= rate:
            return False
        self.counts[what] += 1
        return True


class LossyLayer(Faults, InMemoryChannelLayer):
    """Applies the faults to each member of a group by itself."""

    async def group_send(self, group: str, message: Message) -> None:
        self.require_valid_group_name(group)
        self._clean_expired()
        for channel in list(self.groups.get(group, ())):
            for arriving in self._suffer(channel, message):
                await self._deliver(channel, arriving)

    async def group_discard(self, group: str, channel: str) -> None:
        self._kept_back.pop(channel, None)
        await super().group_discard(group, channel)

    async def heal(self) -> None:
        """Stop all faults from now on; held messages are delivered."""
        self.drop = self.duplicate = self.reorder = self.lose_last = 0.0
        kept_back, self._kept_back = self._kept_back, {}
        for channel, messages in kept_back.items():
            for message in messages:
                await self._deliver(channel, message)

    async def _deliver(self, channel: str, message: Message) -> None:
        try:
            await self.send(channel, message)
        except ChannelFull:
            self.counts["dropped"] += 1


class LossyRedisLayer(Faults, RedisPubSubChannelLayer):
    """Applies the faults to each group, for all its members alike."""

    async def group_send(self, group: str, message: Message) -> None:
        for arriving in self._suffer(group, message):
            await super().__getattr__("group_send")(group, arriving)
