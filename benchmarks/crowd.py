"""Measures what sockets cost that come back, watch, or do nothing; one line for each question.

    python -m benchmarks.crowd [watching returning one_user idle] [--clients 300]

The clients run in this process; only the server's CPU time is counted. Linux only.
"""

import argparse
import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from websockets.asyncio.client import ClientConnection

from benchmarks.connections import raise_file_limit, run_everything
from benchmarks.load import open_socket
from benchmarks.measure import cpu_ms, machine, percentile, rss_kib, table
from tests.support.site import Site

STREAMS = 10
RATE = 20
IDLE_S = 20.0

Row = tuple[str, str, str]


class Client:
    """One socket; the frames that it gets are read, and their times are kept."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.session_id = ""
        self.frames = 0
        self.token_at: list[float] = []
        self.asked_at = 0.0
        self._told = asyncio.Event()

    async def chat(self, tokens: int, *, rate: int = RATE) -> None:
        """Ask for a reply, and read it to its end."""
        content = f"tokens={tokens} rate={rate}"
        self.asked_at = time.perf_counter()
        frame = {"type": "chat", "content": content, "session_id": self.session_id}
        await self._connection.send(json.dumps(frame))
        await self.read_until("complete")

    async def resume(self, session_id: str) -> None:
        """Follow a session from the beginning, until the server has answered."""
        frame = {"type": "resume", "session_id": session_id, "metadata": {"rev": 0}}
        await self._connection.send(json.dumps(frame))
        await self.read_until("resumed")

    async def read_until(self, name: str) -> None:
        """Read frames until one of this type or event."""
        async for message in self._connection:
            frame = json.loads(message)
            self.frames += 1
            event = frame["metadata"].get("event")
            if event == "accepted":
                self.session_id = frame["session_id"]
            if frame["type"] == "token":
                self.token_at.append(time.perf_counter())
            if name in (frame["type"], event):
                return
            assert frame["type"] != "error", frame

    async def drain(self) -> None:
        """Read for ever."""
        async for _ in self._connection:
            self.frames += 1

    @property
    def silence_s(self) -> float:
        """The longest time between two pieces of text."""
        pairs = zip(self.token_at, self.token_at[1:], strict=False)
        return max(after - before for before, after in pairs)


@contextlib.asynccontextmanager
async def clients(site: Site, bearers: list[str]) -> AsyncIterator[list[Client]]:
    """Open one socket for each bearer, all at once."""
    opened = await asyncio.gather(*(open_socket(site.ws_url, bearer) for bearer in bearers))
    try:
        yield [Client(connection) for connection in opened]
    finally:
        await asyncio.gather(*(connection.close() for connection in opened))


@contextlib.asynccontextmanager
async def beside(works: list[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Do other work until the context ends."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Crowd:
    """The lines of the table, measured on one site."""

    def __init__(self, site: Site, bearers: list[str]) -> None:
        self._site = site
        self._bearers = bearers
        self._pid = site.process.pid

    async def watching(self) -> list[Row]:
        """One reply, watched by one socket and by 100."""
        spent, frames = [], []
        for count in (1, 100):
            async with clients(self._site, self._bearers[:1] * count) as (writer, *watchers):
                await writer.chat(1)
                for watcher in watchers:
                    await watcher.resume(writer.session_id)
                before = cpu_ms(self._pid)
                async with beside([watcher.drain() for watcher in watchers]):
                    await writer.chat(200)
                    await asyncio.sleep(1)
                spent.append(cpu_ms(self._pid) - before)
                frames.append(writer.frames + sum(watcher.frames for watcher in watchers))
        each = (spent[1] - spent[0]) / (frames[1] - frames[0])
        return [("100 watchers of one reply", "CPU of each further frame", f"{each:.3f} ms")]

    async def returning(self) -> list[Row]:
        """All come back at once, each to its own session and all to one, beside paced streams."""
        async with clients(self._site, self._bearers) as found:
            await asyncio.gather(*(client.chat(1) for client in found))
            own = [client.session_id for client in found]
        rows = []
        for name, bearers, sessions in (
            ("its own session", self._bearers, own),
            ("one session", self._bearers[:1] * len(own), own[:1] * len(own)),
        ):
            alone, with_them = [await self._return(bearers[:n], sessions) for n in (0, len(own))]
            each = (with_them[0] - alone[0]) / len(own)
            label = f"{len(own)} come back at once, each to {name}"
            rows.append((label, "CPU of each: handshake and resume", f"{each:.1f} ms"))
            rows.append((label, "longest silence of streams beside", f"{with_them[1]:.2f} s"))
            rows.append((label, "until the last has resumed", f"{with_them[2]:.2f} s"))
        return rows

    async def _return(self, bearers: list[str], sessions: list[str]) -> tuple[float, float, float]:
        """Return the server's CPU in ms, the streams' longest silence and the time, in s."""
        async with clients(self._site, self._bearers[:STREAMS]) as streams:
            before = cpu_ms(self._pid)
            async with asyncio.TaskGroup() as tasks:
                for stream in streams:
                    tasks.create_task(stream.chat(RATE * 15))
                await asyncio.sleep(3)
                began = time.perf_counter()
                async with clients(self._site, bearers) as back:
                    pairs = zip(back, sessions, strict=False)
                    await asyncio.gather(*(client.resume(session) for client, session in pairs))
                    took = time.perf_counter() - began
            await asyncio.sleep(1)
            spent = cpu_ms(self._pid) - before
            return spent, max(stream.silence_s for stream in streams), took

    async def one_user(self) -> list[Row]:
        """As many chats at once, each on a socket of its own: of many users, and of one."""
        rows = []
        for name, bearers in (
            ("of as many users", self._bearers),
            ("of one user", self._bearers[:1] * len(self._bearers)),
        ):
            async with clients(self._site, bearers) as found:
                before = cpu_ms(self._pid)
                await asyncio.gather(*(client.chat(20) for client in found))
                await asyncio.sleep(1)
                spent = (cpu_ms(self._pid) - before) / len(found)
            label = f"{len(found)} chats at once {name}"
            firsts = [client.token_at[0] - client.asked_at for client in found]
            rows.append((label, "CPU of a chat", f"{spent:.1f} ms"))
            for share in (0.5, 0.99):
                took = percentile(firsts, share)
                rows.append((label, f"first token, p{share * 100:.0f}", f"{took:.2f} s"))
        return rows

    async def idle(self) -> list[Row]:
        """Sockets that follow a session and do nothing."""
        async with clients(self._site, self._bearers[:1]) as (writer,):
            await writer.chat(1)
            session_id = writer.session_id
        memory, spent = rss_kib(self._pid), await self._spend()
        bearers = self._bearers[:1] * len(self._bearers)
        async with clients(self._site, bearers) as found:
            await asyncio.gather(*(client.resume(session_id) for client in found))
            await asyncio.sleep(1)
            memory = rss_kib(self._pid) - memory
            async with beside([client.drain() for client in found]):
                spent = await self._spend() - spent
        label = f"{len(found)} idle sockets that follow a session"
        share = spent / IDLE_S / 10 * 1_000 / len(found)
        return [
            (label, "CPU of a core per 1,000", f"{share:.1f} %"),
            (label, "memory of each", f"{memory / len(found):.0f} KiB"),
        ]

    async def _spend(self) -> float:
        before = cpu_ms(self._pid)
        await asyncio.sleep(IDLE_S)
        return cpu_ms(self._pid) - before


SETTINGS = {
    "TITLES": "words",
    "RUNS_PER_USER": "100000",
    "TOKENS_PER_DAY": "0",
    "SOCKETS_PER_USER": "100000",
}

LINES: dict[str, Callable[[Crowd], Coroutine[Any, Any, list[Row]]]] = {
    "watching": Crowd.watching,
    "returning": Crowd.returning,
    "one_user": Crowd.one_user,
    "idle": Crowd.idle,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lines", nargs="*", choices=[*LINES, []], help="by default all")
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--valkey", action="store_true", help="with Valkey as channel layer")
    parser.add_argument("--postgres", action="store_true", help="with Postgres as database")
    options = parser.parse_args()
    raise_file_limit(options.clients + 200)
    print(f"{machine()}\n", flush=True)
    with run_everything(options, **SETTINGS) as site:
        users = site.make_users(*(f"user{number}" for number in range(options.clients)))
        crowd = Crowd(site, [user.token for user in users])
        rows = []
        for name in options.lines or LINES:
            rows += asyncio.run(LINES[name](crowd))
        print(table(("what", "figure", "value"), rows))


if __name__ == "__main__":
    main()
