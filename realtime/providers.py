"""From settings to the model that answers.

Reads `settings.AGENT_MODEL` and `AGENT_API`.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import agents
import openai
from agents import (
    Model,
    ModelBehaviorError,
    ModelProvider,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
)
from agents.items import TResponseStreamEvent
from django.conf import settings

from realtime.conf import get_conf
from realtime.limits import StartGate
from realtime.model_service import Endpoint, ModelReadiness, base_url
from realtime.sources import gather
from realtime.stream_verdict import Verdict, verdict
from realtime.supervisor import Supervisor


def model_api() -> str:
    """`chat` or `responses`; other servers than OpenAI's own seldom speak the latter."""
    default = "chat" if base_url() else "responses"
    return getattr(settings, "AGENT_API", default)


async def checked(events: AsyncIterator[TResponseStreamEvent]) -> AsyncIterator[Any]:
    """`events`; what the SDK cannot read in them is the fault of the model's server, not ours.

    Raises `ModelBehaviorError` for it. A fault before the answer came is one of the request.
    """
    ending = verdict.get() or Verdict()
    before = ending.answers
    try:
        async with aclosing(cast(AsyncGenerator[Any, None], events)) as read:
            async for event in read:
                yield event
    except (TypeError, ValueError, LookupError, AttributeError) as exc:
        if ending.answers == before:
            raise
        raise ModelBehaviorError("the answer cannot be read") from exc


class ChatModel(OpenAIChatCompletionsModel):
    """Chat Completions, read with care."""

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        return checked(super().stream_response(*args, **kwargs))


class ResponsesModel(OpenAIResponsesModel):
    """The Responses API, read with care."""

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        return checked(super().stream_response(*args, **kwargs))


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
        kind = ResponsesModel if model_api() == "responses" else ChatModel
        name = model_name or settings.AGENT_MODEL
        return kind(model=name, openai_client=self._connect())

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
