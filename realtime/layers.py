"""The channel layer of a single process."""

import time

from channels.layers import InMemoryChannelLayer

CLEAN_PAUSE_S = 1.0
CAPACITY = 1_000
"""Unread messages of a socket; what comes on top is dropped, and read from the database."""
FOREVER_S = 10 * 365 * 86_400


class LocalLayer(InMemoryChannelLayer):
    """Channels' in-memory layer, tidied once a second instead of at every message.

    Tidying looks at every channel there is, so that the cost of a message grew with the sockets.
    Nor does it drop a socket from its groups after a day.
    """

    def __init__(self, **options: object) -> None:
        super().__init__(capacity=CAPACITY, group_expiry=FOREVER_S, **options)
        self._clean_at = 0.0

    def _clean_expired(self) -> None:
        now = time.monotonic()
        if now >= self._clean_at:
            self._clean_at = now + CLEAN_PAUSE_S
            super()._clean_expired()
