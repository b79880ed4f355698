"""Selects the model by `AGENT_MODEL` and `AGENT_API`, checks budgets, and limits starts."""

import asyncio
import logging
import time
from collections.abc import Callable, Hashable
from typing import Any

import agents
import openai
from agents import Model, ModelProvider
from django.conf import settings
from django.db import InterfaceError, OperationalError

from conversations.runs import usage
from conversations.runs.states import Claimed
from conversations.runs.usage import check_budget, count_tokens, usage_of
from realtime import dbpool
from realtime.conf import get_conf
from realtime.dbpool import Entry, FairQueue, Rank
from realtime.providers.event_stream import gather
from realtime.providers.model_calls import ChatModel, ResponsesModel
from realtime.providers.readiness import Endpoint, ModelReadiness, base_url
from realtime.sockets.viewer import chat_limits
from realtime.tasks import Supervisor

logger = logging.getLogger(__name__)

START_HOLD_S = 0.25
"""Seconds after which a place is released: setting up a reply takes about 20 ms of CPU, and a model
that is still reasoning needs no place.
"""


CHECK_HOLDS_S = 1.0
"""Seconds for which the check of a chat's limits holds for the first model call of its run too."""


class Budget:
    """Checks before the model calls of a run that its user and the site have tokens left."""

    def __init__(self, claimed: Claimed) -> None:
        self._run = claimed.run
        self._checked_at = claimed.checked_at
        self._counted = count_tokens(usage_of(claimed.run))

    async def check(self, spent: int) -> None:
        """Count `spent`, the run's tokens so far; raise `AgentSiteError` if a budget is used up.

        The codes are limit_tokens and limit_site. The first call does nothing if it comes
        within `CHECK_HOLDS_S` of the check of the chat, at `claimed.checked_at`. While the database
        is away it only logs: if that lasts, the run ends after `BUFFER_S`.
        """
        checked_at, self._checked_at = self._checked_at, None
        if checked_at is not None and time.monotonic() - checked_at < CHECK_HOLDS_S:
            return
        limits = chat_limits()
        try:
            if spent > self._counted:
                await dbpool.write_first(usage.count_spent, self._run.pk, spent)
                self._counted = spent
            if limits.has_budget:
                await dbpool.read_first(check_budget, self._run.owner_id, limits)
        except (OperationalError, InterfaceError) as exc:
            logger.warning(
                "run %s: checking the budget failed: %s", self._run.pk, type(exc).__name__
            )


class StartPlace:
    """A taken place of a `StartGate`, held until `leave`, but at most `START_HOLD_S` seconds."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._give_back = release
        self._timer = asyncio.get_running_loop().call_later(START_HOLD_S, self._release)
        self._is_held = True

    def leave(self) -> None:
        """Release the place; further calls do nothing."""
        self._timer.cancel()
        self._release()

    def _release(self) -> None:
        if self._is_held:
            self._is_held = False
            self._give_back()


class StartGate:
    """Lets at most `places` replies start at a time; users take turns.

    A thousand that start together would share the CPU, and all would show their first text late.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()
        self.waiting = 0
        """How many wait for a place."""

    async def enter(self, user_id: Hashable, *, is_resumed: bool = False) -> StartPlace:
        """Wait for a place and take it, until `leave` or for `START_HOLD_S` seconds at most.

        A reply that `is_resumed` comes before all that are new.
        """
        if self._free:
            self._free -= 1
            return StartPlace(self._release)
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.put(Entry(called, Rank.REPLY if is_resumed else Rank.CHAT, user_id))
        self.waiting += 1
        try:
            await called
        except asyncio.CancelledError:
            if called.done() and not called.cancelled():
                self._release()
            raise
        finally:
            self.waiting -= 1
        return StartPlace(self._release)

    def _release(self) -> None:
        """Give a place to the next who waits, or keep it free."""
        while (entry := self._waiting.take()) is not None:
            if not entry.item.done():
                entry.item.set_result(None)
                return
        self._free += 1


def model_api() -> str:
    """Return the API of the model's server, `chat` or `responses`: `AGENT_API` if it is set.

    By default it is `chat` if `OPENAI_BASE_URL` is set, else `responses`: few servers but OpenAI's
    own support that.
    """
    default = "chat" if base_url() else "responses"
    return getattr(settings, "AGENT_API", default)


class Provider(ModelProvider):
    """Makes models that share one HTTP client in an event loop; `gather` reads their streams.

    An embedded model that is restarted at another address gets a new client; the old one is closed.
    """

    def __init__(self, readiness: ModelReadiness) -> None:
        # Trace exports would send prompts to a third party.
        agents.set_tracing_disabled(True)
        self.starts = StartGate(get_conf().starts_at_once)
        self.readiness = readiness
        self._clients: dict[Endpoint, openai.AsyncOpenAI] = {}
        self._closing = Supervisor()

    def get_model(self, model_name: str | None) -> Model:
        """Return the model of that name on `readiness.endpoint`; None or "" is `AGENT_MODEL`.

        The SDK calls it for agents without a model object. Whether the server has such a model is
        not checked. Raises `AgentSiteError(model_not_ready)` while an embedded model is not ready.
        """
        name = model_name or settings.AGENT_MODEL
        kind = ResponsesModel if model_api() == "responses" else ChatModel
        return kind(name, self._connect())

    def _connect(self) -> openai.AsyncOpenAI:
        endpoint = self.readiness.endpoint
        if endpoint not in self._clients:
            # Close clients of servers that are gone: an embedded model restarts at another address.
            for client in self._clients.values():
                self._closing.start(client.close(), "closing of a model client")
            self._clients.clear()
            client = self._clients[endpoint] = openai.AsyncOpenAI(
                api_key=endpoint.api_key,
                base_url=endpoint.base_url,
                max_retries=0,
                timeout=get_conf().provider_timeout_s,
                http_client=openai.DefaultAioHttpClient(event_hooks={"response": [gather]}),
            )
            send_unchanged(client.chat.completions, "messages")
            send_unchanged(client.responses, "input")
        return self._clients[endpoint]

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()
        await self._closing.settled()


def send_unchanged(resource: Any, name: str) -> None:
    """Have `resource.create` send the parameter `name` as it is; it must be given, as JSON values.

    The library converts each of the items as every type that an item may have: for 60 messages that
    takes 7 ms on the event loop, and changes nothing in what the SDK gives it.
    """
    convert = resource.create

    async def create(*, extra_body: Any = None, **params: Any) -> Any:
        whole = {name: params[name], **(extra_body or {})}
        return await convert(**params | {name: []}, extra_body=whole)

    resource.create = create
