"""Asks an agent's model something beside its replies."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agents import Agent, ModelSettings, RunConfig, Runner

from conversations.errors import AgentSiteError, ErrorCode
from conversations.text import clean_text
from conversations.usage import UNKNOWN_USAGE, TokenUsage
from realtime.registry import name_model
from realtime.stream_verdict import Verdict, verdict
from realtime.thinking import strip_all_thinking
from realtime.usage import measured

if TYPE_CHECKING:
    from agents.usage import Usage

    from realtime.providers import Provider

TIMEOUT_S = 60


@dataclass(frozen=True)
class Answer:
    """What the model said, and what that took."""

    text: str
    model: str
    usage: TokenUsage


def can_be_asked(agent: Agent[Any]) -> bool:
    """Whether its model answers other questions than those it was written for."""
    return not getattr(agent.model, "is_scripted", False)


async def ask_model(
    agent: Agent[Any], provider: "Provider", instructions: str, text: str, max_tokens: int
) -> Answer:
    """The answer of an agent's model to `text`, without the agent's tools and instructions.

    `max_tokens` limits what it thinks and says together. Raises what the SDK raises,
    `AgentSiteError` for an answer that broke off, and `TimeoutError`.
    """
    ending = Verdict()
    verdict.set(ending)
    result = Runner.run_streamed(
        Agent(name=agent.name, instructions=instructions, model=agent.model),
        input=text,
        max_turns=1,
        run_config=RunConfig(
            model_provider=provider,
            model_settings=ModelSettings(include_usage=True, max_tokens=max_tokens),
            tracing_disabled=True,
        ),
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            async for _ in result.stream_events():
                pass
    finally:
        result.cancel()
    if ending.finish_reason in ("failed", "content_filter"):
        raise AgentSiteError(ErrorCode.PROVIDER_CUT)
    said = strip_all_thinking(clean_text(str(result.final_output or "")))
    return Answer(said, name_model(agent), _usage(result.context_wrapper.usage))


def _usage(usage: "Usage") -> TokenUsage:
    return measured(usage) if usage.total_tokens else UNKNOWN_USAGE
