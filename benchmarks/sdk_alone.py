"""The SDK alone reading the same streams, without socket or store: a lower bound of the cost."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from agents import Agent, Runner, set_default_openai_api, set_tracing_disabled

from benchmarks.driver import Scenario, Seen, be_driven
from tests.support.provider import words


async def read_reply(agent: Agent, prompt: str, expected: str, seen: Seen) -> None:
    asked_at = time.perf_counter()
    result = Runner.run_streamed(agent, prompt)
    first_at = None
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            first_at = first_at or time.perf_counter()
            seen.frames += 1
    seen.note(asked_at, first_at)
    if result.final_output != expected:
        seen.faults.append("wrong text")


async def get_ready(scenario: Scenario, api: str) -> Callable[[], Awaitable[Seen]]:
    """Create the client and open its first connection."""
    set_tracing_disabled(True)
    set_default_openai_api("responses" if api == "responses" else "chat_completions")
    agent = Agent("relay", model="stand-in")
    await read_reply(agent, "tokens=5 rate=0", "".join(words(5)), Seen())
    seen = Seen()
    expected = "".join(words(scenario.tokens))

    async def chat(index: int) -> None:
        await asyncio.sleep(scenario.ramp_s * index / scenario.clients)
        for _ in range(scenario.rounds):
            await read_reply(agent, scenario.prompt, expected, seen)

    async def run() -> Seen:
        await asyncio.gather(*map(chat, range(scenario.clients)))
        return seen

    return run


if __name__ == "__main__":
    asyncio.run(be_driven(get_ready))
