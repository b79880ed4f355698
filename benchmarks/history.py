"""Compares the time to first token in a short and in a long conversation.

    python -m benchmarks.history [--turns 500] [--rounds 40] [--summaries off]

Linux only.
"""

import argparse
import asyncio
import json
import time
from dataclasses import dataclass, field

from websockets.asyncio.client import ClientConnection

from benchmarks.clients import open_socket
from benchmarks.measure import machine, median, percentile, table
from benchmarks.sides import run_stand_in
from tests.support.site import Site, run_site

SHORT_TURNS = 5
PROMPT = "tokens=60 rate=0: tell me more of the herons at the old mill, and of the fish"
TARGET = 1.2


@dataclass
class Conversation:
    """A session on a socket of its own, with its times to first token in milliseconds."""

    connection: ClientConnection
    session_id: str = ""
    ttft_ms: list[float] = field(default_factory=list)

    async def say(self) -> float:
        """Do one complete turn; returns the time to its first token."""
        asked_at = time.perf_counter()
        frame = {"type": "chat", "session_id": self.session_id, "content": PROMPT}
        await self.connection.send(json.dumps(frame))
        first_at = None
        async for message in self.connection:
            frame = json.loads(message)
            if frame["type"] == "token":
                first_at = first_at or time.perf_counter()
            if frame["type"] == "complete":
                self.session_id = frame["session_id"]
                break
            assert frame["type"] != "error", frame
        assert first_at, "no token"
        return (first_at - asked_at) * 1000


async def measure(site: Site, options: argparse.Namespace) -> list[tuple[str, list[float]]]:
    """Measure sixth turns of short sessions and next turns of one long session, alternating."""
    ann = site.users["ann"]
    connection = await open_socket(site.ws_url, ann.token)
    long = Conversation(connection)
    for _ in range(options.turns):
        await long.say()
    short: list[float] = []
    for _ in range(options.rounds):
        fresh = Conversation(connection)
        for _ in range(SHORT_TURNS):
            await fresh.say()
        short.append(await fresh.say())
        long.ttft_ms.append(await long.say())
    await connection.close()
    return [(f"after {SHORT_TURNS} turns", short), (f"after {options.turns} turns", long.ttft_ms)]


def report(found: list[tuple[str, list[float]]]) -> None:
    base = median(found[0][1])
    rows = [
        [name, f"{median(ms):.1f}", f"{percentile(ms, 0.9):.1f}", f"{median(ms) / base:.2f}"]
        for name, ms in found
    ]
    print(table(["conversation", "first token p50 ms", "p90 ms", "of the short one"], rows))
    print(f"\nThe target is {TARGET}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--summaries", choices=["model", "off"], default="model")
    options = parser.parse_args()
    print(machine(), end="\n\n")
    with run_stand_in() as base_url:
        settings = {
            "OPENAI_BASE_URL": base_url,
            "OPENAI_API_KEY": "none",
            "AGENT_MODEL": "stand-in",
            "SUMMARIES": options.summaries,
            "FRAMES_PER_MINUTE": "1000000",
        }
        with run_site(**settings) as site:
            report(asyncio.run(measure(site, options)))


if __name__ == "__main__":
    main()
