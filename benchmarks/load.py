"""Clients of a relay: real sockets that request replies and read them to the end."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from benchmarks.driver import Scenario, Seen, be_driven
from tests.support.provider import words

DEADLINE_S = 300


async def open_socket(url: str, bearer: str) -> ClientConnection:
    return await connect(
        url,
        additional_headers={"Authorization": f"Bearer {bearer}"},
        compression=None,
        ping_interval=None,
        proxy=None,
        max_queue=None,
        open_timeout=60,
    )


async def read_reply(connection: ClientConnection, prompt: str, expected: str, seen: Seen) -> None:
    """Request one reply, read it to the end, and compare it with what is expected."""
    asked_at = time.perf_counter()
    first_at = None
    await connection.send(json.dumps({"type": "chat", "content": prompt}))
    text = ""
    async for message in connection:
        frame = json.loads(message)
        seen.frames += 1
        match frame["type"]:
            case "token":
                first_at = first_at or time.perf_counter()
                text += frame["content"]
            case "complete":
                seen.note(asked_at, first_at)
                if not text == frame["content"] == expected:
                    seen.faults.append(f"wrong text: {len(text)} of {len(expected)} characters")
                return
            case "error":
                seen.faults.append(str(message))
                return


async def connect_all(
    scenario: Scenario, url: str, bearers: list[str]
) -> Callable[[], Awaitable[Seen]]:
    """Open the sockets; `bearers` are the users' tokens, assigned round-robin."""
    connections = await asyncio.gather(
        *(open_socket(url, bearers[index % len(bearers)]) for index in range(scenario.clients))
    )
    seen = Seen()
    expected = "".join(words(scenario.tokens))

    async def chat(index: int) -> None:
        await asyncio.sleep(scenario.ramp_s * index / scenario.clients)
        try:
            async with asyncio.timeout(DEADLINE_S):
                for _ in range(scenario.rounds):
                    await read_reply(connections[index], scenario.prompt, expected, seen)
        except (ConnectionClosed, TimeoutError) as exc:
            seen.faults.append(repr(exc))

    async def run() -> Seen:
        await asyncio.gather(*map(chat, range(scenario.clients)))
        return seen

    return run


if __name__ == "__main__":
    asyncio.run(be_driven(connect_all))
