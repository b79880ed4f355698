"""From settings to the model that answers, and how many runs start at once.

Reads `settings.AGENT_MODEL` and `AGENT_API`.
"""

import asyncio
import logging

import agents
import openai
from agents import Model, ModelProvider
from django.conf import settings
from django.db import InterfaceError, OperationalError

from conversations.models import Run
from conversations.runs import usage
from conversations.runs.usage import check_budget, count_tokens, usage_of
from realtime import dbpool
from realtime.conf import get_conf
from realtime.providers.event_stream import gather
from realtime.providers.model_calls import ChatModel, ResponsesModel
from realtime.providers.readiness import Endpoint, ModelReadiness, base_url
from realtime.sockets.viewer import chat_limits
from realtime.tasks import Supervisor

logger = logging.getLogger(__name__)

START_HOLD_S = 0.25
"""Setting a reply up takes some 20 ms of CPU; a place is not kept for a model that thinks."""


class Budget:
    """What a run's user, and the site, may still spend; asked before each model call."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._counted = count_tokens(usage_of(run))

    async def check(self, spent: int) -> None:
        """Count that the run has taken `spent` tokens in all; raises `AgentSiteError`.

        Not while the database is away: a run goes on then for `BUFFER_S` at most.
        """
        try:
            if spent > self._counted:
                await dbpool.write_first(usage.count_spent, self._run.pk, spent)
                self._counted = spent
            await dbpool.read_first(check_budget, self._run.owner_id, chat_limits())
        except (OperationalError, InterfaceError) as exc:
            logger.warning("run %s: budget not checked: %s", self._run.pk, type(exc).__name__)


class StartPlace:
    """One of the places of a gate, until it is left or its time is over."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self._timer = asyncio.get_running_loop().call_later(START_HOLD_S, self._release)
        self._is_held = True

    def leave(self) -> None:
        """Let the next one in; once is enough."""
        self._timer.cancel()
        self._release()

    def _release(self) -> None:
        if self._is_held:
            self._is_held = False
            self._places.release()


class StartGate:
    """Lets replies begin in the order they came, a few at a time.

    A thousand that begin together would share the CPU, and all show their first word last.
    """

    def __init__(self, places: int) -> None:
        self._places = asyncio.Semaphore(places)

    async def enter(self) -> StartPlace:
        """Wait for a place."""
        await self._places.acquire()
        return StartPlace(self._places)


def model_api() -> str:
    """`chat` or `responses`; other servers than OpenAI's own seldom speak the latter."""
    default = "chat" if base_url() else "responses"
    return getattr(settings, "AGENT_API", default)


class Provider(ModelProvider):
    """One HTTP client for all runs of an event loop, with few and large events.

    A model of our own that is started again is another server.
    """

    def __init__(self, readiness: ModelReadiness) -> None:
        # Exporting traces would send prompts to a third party.
        agents.set_tracing_disabled(True)
        self.starts = StartGate(get_conf().starts_at_once)
        self.readiness = readiness
        self._clients: dict[Endpoint, openai.AsyncOpenAI] = {}
        self._closing = Supervisor()

    def get_model(self, model_name: str | None) -> Model:
        """The model of that name, or of the settings; agents with their own do not ask."""
        name = model_name or settings.AGENT_MODEL
        kind = ResponsesModel if model_api() == "responses" else ChatModel
        return kind(name, self._connect())

    def _connect(self) -> openai.AsyncOpenAI:
        endpoint = self.readiness.endpoint
        if endpoint not in self._clients:
            # Those of servers that are gone: a model of our own comes up at another address.
            for client in self._clients.values():
                self._closing.start(client.close(), "close a model's client")
            self._clients.clear()
            self._clients[endpoint] = openai.AsyncOpenAI(
                api_key=endpoint.api_key,
                base_url=endpoint.base_url,
                max_retries=0,
                timeout=get_conf().provider_timeout_s,
                http_client=openai.DefaultAioHttpClient(event_hooks={"response": [gather]}),
            )
        return self._clients[endpoint]

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()
        await self._closing.settled()
