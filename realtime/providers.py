"""From settings to the model that answers.

Reads `settings.AGENT_MODEL` and `AGENT_API`.
"""

import agents
import openai
from agents import Model, ModelProvider
from django.conf import settings

from realtime.conf import get_conf
from realtime.limits import StartGate
from realtime.model_calls import ChatModel, ResponsesModel
from realtime.model_service import Endpoint, ModelReadiness, base_url
from realtime.sources import gather
from realtime.supervisor import Supervisor


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
