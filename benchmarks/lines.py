"""The lines of `make bench`: what each measures, and what its figures may be at most."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.clients import Client, Load, beside, clients
from benchmarks.measure import cpu_ms, median, percentile, rss_kib
from benchmarks.sides import WARM_UP, Bench, Outcome, Sdk, Server
from tests.support.servers import run_postgres, run_valkey

IDLE_SOCKETS, IDLE_USERS = 5_000, 250
IDLE_S = 25.0
"""One period of the heartbeat."""

SETTLE_S = 5.0

REPEAT = 2


@dataclass(frozen=True)
class Row:
    """One row of the table: what its figure says, in which unit, and what it may be at most.

    `at_most` is None for a figure that only describes the machine.
    """

    what: str
    at_most: float | None
    unit: str = ""


@dataclass(frozen=True)
class Figure:
    """A measured value in the unit of its row, and the values that it was made from."""

    value: float
    detail: str = ""


Measure = Callable[[Bench], Awaitable[list[Figure]]]


@dataclass(frozen=True)
class Line:
    """A line, by its name in `LINES`; `measure` returns a figure for each of `rows`."""

    rows: Sequence[Row]
    measure: Measure


def of(value: float, base: float, unit: str) -> Figure:
    """Return a ratio with the two values that it was made from."""
    return Figure(value / base, f"{value:.3g} of {base:.3g} {unit}")


async def in_turns(sides: Sequence[Server | Sdk], load: Load) -> list[Outcome]:
    """Measure the sides alternately, `REPEAT` times; returns each one's costs and replies
    together.
    """
    found: list[list[Outcome]] = [[] for _ in sides]
    for _ in range(REPEAT):
        for side, outcomes in zip(sides, found, strict=True):
            outcomes.append(await side.measure(load))
    return [
        Outcome(sum(one.cpu_ms for one in runs), [reply for one in runs for reply in one.replies])
        for runs in found
    ]


async def measure_sdk(bench: Bench) -> list[Figure]:
    busy = os.getloadavg()[0]
    load = Load(clients=40, tokens=200, rate=50, ramp_s=1)
    outcome = await bench.sdk().measure(load)
    return [Figure(outcome.cpu_per_reply / load.tokens * 1000, f"load {busy:.1f} before")]


async def measure_reply(bench: Bench) -> list[Figure]:
    """Replies of one token, one after another: all that is left is their beginning and end."""
    load = Load(clients=1, tokens=1, rate=0, rounds=60)
    with bench.site(users=1) as site:
        await site.measure(WARM_UP)
        sdk, stored = await in_turns([bench.sdk(), site], load)
    return [of(stored.cpu_per_reply, sdk.cpu_per_reply, "ms")]


async def measure_streams(bench: Bench, api: str) -> list[Figure]:
    """Begin 40 conversations within a second, each on a socket of its own."""
    figures, later = [], 0.0
    with bench.relay(api) as relay, bench.site(users=40, AGENT_API=api) as site:
        for side in (relay, site):
            await side.measure(WARM_UP)
        for rate in (50, 150):
            load = Load(clients=40, tokens=200, rate=rate, ramp_s=1)
            relayed, stored = await in_turns([relay, site], load)
            spent, base = (one.cpu_per_reply / load.tokens * 1000 for one in (stored, relayed))
            figures.append(of(spent, base, "ms"))
            if rate == 50:
                later = 1000 * (stored.first_s(0.5) - relayed.first_s(0.5))
    return [*figures, Figure(later)]


async def measure_one_client(bench: Bench) -> list[Figure]:
    load = Load(clients=1, tokens=20, rate=50, rounds=20)
    with bench.relay() as relay, bench.site(users=1) as site:
        for side in (relay, site):
            await side.measure(WARM_UP)
        relayed, stored = await in_turns([relay, site], load)
    first, base = (1000 * one.first_s(0.5) for one in (stored, relayed))
    return [Figure(first - base, f"{first:.1f} and {base:.1f} ms")]


BURST = Load(clients=300, tokens=20, rate=20)


async def measure_burst(bench: Bench) -> list[Figure]:
    with bench.relay() as relay, bench.site(users=300) as site:
        for side in (relay, site):
            await side.measure(WARM_UP)
        relayed, stored = await relay.measure(BURST), await site.measure(BURST)
    return [of(stored.first_s(share), relayed.first_s(share), "s") for share in (0.5, 0.99)]


async def measure_burst_postgres(bench: Bench) -> list[Figure]:
    with (
        run_postgres() as postgres,
        run_valkey() as valkey,
        bench.site(users=300, postgres=postgres, REDIS_URL=valkey.url) as site,
    ):
        await site.measure(WARM_UP)
        outcome = await site.measure(BURST)
    share = outcome.first_s(0.05) / outcome.took_s * 100
    return [Figure(share, f"{outcome.first_s(0.05):.1f} of {outcome.took_s:.1f} s")]


async def measure_thousand(bench: Bench) -> list[Figure]:
    """Begin 1,000 chats at once; then let their clients come back, each to its conversation."""
    load = Load(clients=1_000, tokens=20, rate=20)
    sdk = await bench.sdk().measure(load)
    with bench.site(users=1_000) as site:
        await site.measure(WARM_UP)
        async with clients(site.url, site.bearers) as found:
            stored = await site.measure_open(load, found)
            sessions = [client.session_id for client in found]
        alone, _ = await _return(site, [])
        spent, silence = await _return(site, sessions)
    cpu = (spent - alone) / len(sessions)
    each = of(stored.cpu_per_reply, sdk.cpu_per_reply, "ms")
    return [each, Figure(silence), Figure(cpu)]


async def _return(site: Server, sessions: list[str]) -> tuple[float, float]:
    """Let as many clients return at once beside 20 streams of 20 s; returns CPU ms, and seconds of
    the longest silence of a stream.
    """
    async with clients(site.url, site.bearers_for(20)) as streams:
        before = cpu_ms(site.pid)
        replies = [asyncio.create_task(stream.chat(400, 20)) for stream in streams]
        await asyncio.sleep(3)
        async with clients(site.url, site.bearers_for(len(sessions))) as back:
            pairs = zip(back, sessions, strict=True)
            await asyncio.gather(*(client.follow(session) for client, session in pairs))
        found = await asyncio.gather(*replies)
        await asyncio.sleep(1)
        return cpu_ms(site.pid) - before, max(max(reply.silences_s) for reply in found)


async def measure_one_user(bench: Bench) -> list[Figure]:
    outcomes = []
    for users in (1, 300):
        with bench.site(users=users) as site:
            await site.measure(WARM_UP)
            outcomes.append(await site.measure(BURST))
    one, many = outcomes
    return [
        of(one.first_s(0.99), many.first_s(0.99), "s"),
        of(one.cpu_per_reply, many.cpu_per_reply, "ms"),
    ]


async def measure_idle(bench: Bench) -> list[Figure]:
    """Open sockets that follow a session of their user; the server's CPU time and memory beyond
    those of the same site without sockets.
    """
    with bench.site(users=IDLE_USERS) as site:
        async with clients(site.url, site.bearers) as writers:
            await asyncio.gather(*(writer.chat(1, 0) for writer in writers))
            sessions = [writer.session_id for writer in writers]
        alone = await _spend(site)
        memory = rss_kib(site.pid)
        bearers = site.bearers_for(IDLE_SOCKETS)
        async with clients(site.url, bearers, at_once=100) as found:
            for index, client in enumerate(found):
                await client.follow(sessions[index % IDLE_USERS])
            async with beside([client.drain() for client in found]):
                # For the answers to pings that came while the sockets were opened.
                await asyncio.sleep(SETTLE_S)
                spent = await _spend(site) - alone
            memory = rss_kib(site.pid) - memory
    share = spent / IDLE_S / 10 / (IDLE_SOCKETS / 1_000)
    return [Figure(share), Figure(memory / IDLE_SOCKETS)]


async def _spend(site: Server) -> float:
    """Return the CPU time in ms of the site in `IDLE_S`."""
    before = cpu_ms(site.pid)
    await asyncio.sleep(IDLE_S)
    return cpu_ms(site.pid) - before


async def measure_watchers(bench: Bench) -> list[Figure]:
    """One reply of ten seconds, watched by no other socket and by 100."""
    spent, frames = [], []
    with bench.site(users=1) as site:
        await site.measure(WARM_UP)
        for count in (1, 101):
            async with clients(site.url, site.bearers_for(count)) as (writer, *watchers):
                await writer.chat(1, 0)
                for watcher in watchers:
                    await watcher.follow(writer.session_id)
                before, seen = cpu_ms(site.pid), sum(one.frames for one in (writer, *watchers))
                async with beside([watcher.drain() for watcher in watchers]):
                    await writer.chat(200, 20, session_id=writer.session_id)
                    await asyncio.sleep(1)
                spent.append(cpu_ms(site.pid) - before)
                frames.append(sum(one.frames for one in (writer, *watchers)) - seen)
    return [Figure((spent[1] - spent[0]) / (frames[1] - frames[0]))]


async def measure_unpaced(bench: Bench) -> list[Figure]:
    """Paced streams of ten seconds beside streams that the model sends as fast as it can."""

    async def flood(client: Client) -> None:
        while True:
            await client.chat(20_000, 0)

    with bench.site(users=50) as site:
        await site.measure(WARM_UP)
        async with (
            clients(site.url, site.bearers_for(50)) as found,
            beside([flood(client) for client in found[20:]]),
        ):
            await asyncio.sleep(2)
            began = time.perf_counter()
            paced = await asyncio.gather(*(client.chat(200, 20) for client in found[:20]))
            took = time.perf_counter() - began
    longest = [max(reply.silences_s) for reply in paced]
    return [Figure(percentile(longest, 0.99), f"p50 {median(longest):.1f}, all in {took:.0f} s")]


def _streams(prefix: str, api: str, *more: Row) -> Line:
    rows = [
        Row(f"{prefix}, 40 fresh chats of 200 tokens at {rate}/s, of the relay", at_most)
        for rate, at_most in ((50, 0.60), (150, 0.45))
    ]
    measure = partial(measure_streams, api=api)
    if more:
        return Line([*rows, *more], measure)

    async def without_times(bench: Bench) -> list[Figure]:
        return (await measure(bench))[: len(rows)]

    return Line(rows, without_times)


LINES: dict[str, Line] = {
    "sdk": Line(
        [Row("The bare SDK: CPU per 1,000 tokens, 40 streams of 50/s", None, "ms")],
        measure_sdk,
    ),
    "reply": Line(
        [Row("CPU of a reply beside its tokens (post to end), of the bare SDK's run", 2.0)],
        measure_reply,
    ),
    "streams": _streams(
        "CPU per 1,000 tokens",
        "chat",
        Row("First token there at 50/s, p50 beyond the relay's", 50, "ms"),
    ),
    "responses": _streams("The same with the Responses API", "responses"),
    "one_client": Line(
        [Row("First token, one client, beyond the relay's", 10, "ms")],
        measure_one_client,
    ),
    "burst": Line(
        [
            Row(f"300 chats at once, {share} of the first token, of the relay", 1.5)
            for share in ("p50", "p99")
        ],
        measure_burst,
    ),
    "burst_postgres": Line(
        [
            Row(
                "The same on Postgres and Valkey: the fastest 5 % of first tokens, of the whole "
                "time",
                *(10, "%"),
            )
        ],
        measure_burst_postgres,
    ),
    "thousand": Line(
        [
            Row("1,000 chats at once: CPU a chat, of the bare SDK's run", 2.2),
            Row("1,000 clients return at once: longest silence of 20 streams beside", 1, "s"),
            Row("The same: CPU a client, handshake and resume", 4, "ms"),
        ],
        measure_thousand,
    ),
    "one_user": Line(
        [
            Row("300 chats of one user with 300 sockets: p99 of the first token, of 300", 1.1),
            Row("The same: CPU a chat, of 300 users", 1.1),
        ],
        measure_one_user,
    ),
    "idle": Line(
        [
            Row("5,000 idle sockets that follow a session: CPU of a core per 1,000", 1, "%"),
            Row("The same: memory each", 35, "KiB"),
        ],
        measure_idle,
    ),
    "watchers": Line(
        [Row("100 watchers of one reply: CPU for each further frame", 0.08, "ms")],
        measure_watchers,
    ),
    "unpaced": Line(
        [Row("30 unpaced streams beside 20 paced ones: silence of the paced, p99", 1, "s")],
        measure_unpaced,
    ),
}
"""By name, in the order of the table; "sdk" says how fast the machine is and is always measured."""
