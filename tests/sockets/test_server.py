"""The server's dealings with one connection."""

import asyncio
from typing import Any

from realtime.conf import get_conf
from realtime.sockets.server import Server, Valve


async def test_a_reader_who_leaves_before_the_last_piece_is_no_fault() -> None:
    # After the server, which chooses Twisted's reactor.
    from twisted.internet.error import ConnectionDone
    from twisted.python.failure import Failure
    from twisted.web.http import Request
    from twisted.web.test.requesthelper import DummyChannel

    async def application(*args: Any) -> None:
        raise NotImplementedError

    server = Server(application, host="127.0.0.1", port=0)
    server.connections = {}
    channel: Any = DummyChannel()
    asked: Any = Request(channel, False)
    asked.valve = Valve(lambda: None)
    asked.connectionLost(Failure(ConnectionDone()))
    await server.handle_reply(asked, {"type": "http.response.body", "body": b""})


async def test_a_crowd_may_wait_to_be_accepted(settings: Any) -> None:
    settings.REALTIME = {**settings.REALTIME, "listen_backlog": 123}

    async def application(*args: Any) -> None:
        raise NotImplementedError

    server = Server(application, host="::1", port=0)
    # After the server, which chooses Twisted's reactor.
    from twisted.internet import reactor
    from twisted.internet.endpoints import serverFromString

    (endpoint,) = (serverFromString(reactor, text) for text in server.endpoints)
    assert (endpoint._interface, endpoint._backlog) == ("::1", 123)


async def test_a_client_that_answers_the_heartbeat_is_not_pinged_twice() -> None:
    async def application(*args: Any) -> None:
        raise NotImplementedError

    assert Server(application, host="::1", port=0).ping_interval > get_conf().heartbeat_s


async def test_a_full_send_buffer_is_waited_for_each_time() -> None:
    valve = Valve(lambda: None)
    await valve.drained(0)
    for release in (valve.resumeProducing, valve.stopProducing):
        valve.pauseProducing()
        valve.pauseProducing()
        waiting = asyncio.create_task(valve.drained(60))
        await asyncio.sleep(0)
        assert not waiting.done()
        release()
        await waiting
