"""From settings to the model that answers, and from its errors to ours.

Reads `settings.AGENT_MODEL` and `AGENT_API`; the gate says where the model's server is.
"""

from typing import Any

import agents
import openai
from agents import Model, ModelProvider, OpenAIChatCompletionsModel, OpenAIResponsesModel
from django.conf import settings

from conversations.errors import AgentSiteError, ErrorCode
from realtime.conf import get_conf
from realtime.gate import Gate
from realtime.model_service import Endpoint
from realtime.sources import gather

RUN_ERRORS: list[tuple[type[Exception], ErrorCode]] = [
    (agents.MaxTurnsExceeded, ErrorCode.LIMIT_TURNS),
    (agents.InputGuardrailTripwireTriggered, ErrorCode.GUARDRAIL),
    (agents.OutputGuardrailTripwireTriggered, ErrorCode.GUARDRAIL),
    (openai.RateLimitError, ErrorCode.PROVIDER_RATE_LIMITED),
    (openai.APIConnectionError, ErrorCode.PROVIDER_UNAVAILABLE),
    (openai.InternalServerError, ErrorCode.PROVIDER_UNAVAILABLE),
    (openai.APIStatusError, ErrorCode.PROVIDER_REFUSED),
    (openai.APIError, ErrorCode.PROVIDER_CUT),
]


class Provider(ModelProvider):
    """One HTTP client for all runs of an event loop, with few and large events.

    A model of our own that is started again is another server.
    """

    def __init__(self, gate: Gate) -> None:
        # Exporting traces would send prompts to a third party.
        agents.set_tracing_disabled(True)
        self._gate = gate
        self._clients: dict[Endpoint, openai.AsyncOpenAI] = {}

    def get_model(self, model_name: str | None) -> Model:
        """The model of that name, or of the settings; agents with their own do not ask."""
        kind = (
            OpenAIResponsesModel
            if settings.AGENT_API == "responses"
            else OpenAIChatCompletionsModel
        )
        name = model_name or settings.AGENT_MODEL
        return kind(model=name, openai_client=self._connect())

    def _connect(self) -> openai.AsyncOpenAI:
        endpoint = self._gate.endpoint
        if endpoint not in self._clients:
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


def run_error(exc: BaseException, *, has_text: bool) -> AgentSiteError:
    """What to tell people of an exception that ended a run."""
    if isinstance(exc, AgentSiteError):
        return exc
    code = next((code for kind, code in RUN_ERRORS if isinstance(exc, kind)), ErrorCode.INTERNAL)
    if code == ErrorCode.PROVIDER_UNAVAILABLE and has_text:
        code = ErrorCode.PROVIDER_CUT
    if code == ErrorCode.PROVIDER_REFUSED and _is_too_long(exc):
        code = ErrorCode.CONTEXT_TOO_LONG
    return AgentSiteError(code, retry_after=_retry_after(exc))


def _is_too_long(exc: Any) -> bool:
    return exc.code == "context_length_exceeded" or "context" in str(exc.message).lower()


def _retry_after(exc: BaseException) -> float | None:
    """Seconds; only the plain form of the header is read."""
    if not isinstance(exc, openai.APIStatusError):
        return None
    try:
        return max(0.0, float(exc.response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None
