"""The SDK alone reading the same streams, without socket or store: a lower bound of the cost.

Reads a `Load` as JSON from its input, prints "ready", measures at the next line, and prints one
line of JSON: its CPU time in ms and the replies.
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict
from itertools import chain

from agents import Agent, Runner, set_default_openai_api, set_tracing_disabled

from benchmarks.clients import Load, Reply
from tests.support.provider import words


async def read_reply(agent: Agent, load: Load) -> Reply:
    reply = Reply()
    result = Runner.run_streamed(agent, load.prompt)
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            reply.text_at.append(time.perf_counter())
    reply.ended_at = time.perf_counter()
    assert result.final_output == "".join(words(load.tokens)), "wrong text"
    return reply


async def measure(load: Load, api: str) -> tuple[float, list[Reply]]:
    set_tracing_disabled(True)
    set_default_openai_api("responses" if api == "responses" else "chat_completions")
    agent = Agent("relay", model="stand-in")
    # Opens the first connection.
    await read_reply(agent, Load(clients=1, tokens=5, rate=0))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)

    async def chat(index: int) -> list[Reply]:
        await asyncio.sleep(load.ramp_s * index / load.clients)
        return [await read_reply(agent, load) for _ in range(load.rounds)]

    before = time.process_time()
    replies = await asyncio.gather(*map(chat, range(load.clients)))
    return (time.process_time() - before) * 1000, list(chain(*replies))


def main() -> None:
    load = Load(**json.loads(sys.stdin.readline()))
    cpu_ms, replies = asyncio.run(measure(load, api=sys.argv[1]))
    print(json.dumps([cpu_ms, [asdict(reply) for reply in replies]]))


if __name__ == "__main__":
    main()
