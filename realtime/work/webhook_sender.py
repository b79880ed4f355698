"""Sends webhooks: takes deliveries that are due, posts them, and notes the answers."""

import asyncio
import logging
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from django.core.exceptions import ValidationError

from conversations import webhooks
from conversations.webhooks import Due
from realtime import dbpool
from realtime.tasks import describe
from realtime.telemetry import metrics

logger = logging.getLogger(__name__)

POLL_S = 1.0
SENDERS = 8
"""Attempts at the same time."""

ATTEMPT = aiohttp.ClientTimeout(total=10)


class PublicResolver(AbstractResolver):
    """Resolves names, and refuses addresses that messages may not be sent to.

    The connection is made to an address from here, so a name cannot change between the check and
    the connection.
    """

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        public = [each for each in found if webhooks.may_connect(each["host"])]
        if not public:
            raise OSError("a private address")
        return public

    async def close(self) -> None:
        await self._resolver.close()


class WebhookSender:
    """Posts deliveries, `SENDERS` at a time, at least once each and in no certain order."""

    async def run(self) -> None:
        """Take deliveries and attempt them, until cancelled; an error is only logged.

        An attempt that is cancelled is repeated after `webhooks.LEASE`.
        """
        connector = aiohttp.TCPConnector(resolver=PublicResolver(), limit=SENDERS)
        async with aiohttp.ClientSession(
            connector=connector, timeout=ATTEMPT, cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            while True:
                taken = 0
                try:
                    taken = await self.send_due(session)
                except Exception as exc:
                    logger.error("sending webhooks failed: %s", describe(exc))
                if taken < SENDERS:
                    await asyncio.sleep(POLL_S)

    async def send_due(self, session: aiohttp.ClientSession) -> int:
        """Attempt deliveries that are due, `SENDERS` at most; return how many were."""
        due = await dbpool.write(webhooks.take_due, SENDERS)
        async with asyncio.TaskGroup() as attempts:
            for each in due:
                attempts.create_task(self._attempt(session, each))
        return len(due)

    async def _attempt(self, session: aiohttp.ClientSession, due: Due) -> None:
        status, error = await _post(session, due)
        result = await dbpool.write(webhooks.note_attempt, due.id, status, error)
        metrics.WEBHOOKS.labels(result).inc()
        if result == "given_up":
            logger.error("webhook %s: given up: %s", due.id, status or error)


async def _post(session: aiohttp.ClientSession, due: Due) -> tuple[int | None, str]:
    """Return the status of the answer, else the name of what prevented one."""
    try:
        # Anew: `DEBUG` and the rules may have changed since the endpoint was saved.
        webhooks.check_url(due.url)
        async with session.post(
            due.url, data=due.body, headers=due.headers, allow_redirects=False
        ) as answer:
            return answer.status, ""
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, ValidationError) as exc:
        return None, type(exc).__name__
