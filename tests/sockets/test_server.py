"""The server's dealings with one connection."""

import asyncio
import contextlib
import json
import socket
from types import SimpleNamespace
from typing import Any, cast

import pytest

from realtime.conf import get_conf
from realtime.process import Process
from realtime.sockets.server import PatientProtocol, Server, Valve, _announce


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


async def test_of_a_crowd_one_is_accepted_in_a_turn_of_the_loop() -> None:
    async def application(*args: Any) -> None:
        raise NotImplementedError

    server = Server(application, host="127.0.0.1", port=0)
    # After the server, which chooses Twisted's reactor.
    from twisted.internet.error import ConnectionAborted
    from twisted.internet.protocol import Factory, Protocol
    from twisted.internet.tcp import Port
    from twisted.python.failure import Failure

    accepted: list[Any] = []

    class Accepted(Protocol):
        def makeConnection(self, transport: Any) -> None:  # noqa: N802
            accepted.append(transport)

    factory: Any = Factory.forProtocol(Accepted)
    build = factory.buildProtocol
    factory.buildProtocol = lambda address: server._build_channel(build, address)
    port = Port(0, factory, interface="127.0.0.1")
    port.startListening()
    server.listen_success(port)
    address = port.getHost().host, port.getHost().port
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(socket.create_connection(address))
        for turn in range(1, 6):
            port.doRead()
            assert len(accepted) == turn
        for transport in accepted:
            server.on_headers(transport.getPeer())
            transport.connectionLost(Failure(ConnectionAborted()))
        port.connectionLost(Failure(ConnectionAborted()))


def test_options_of_connections_are_shared() -> None:
    """Autobahn copies and logs what is left in `CONFIG_ATTRS`: only a function."""
    from autobahn.twisted.websocket import WebSocketServerFactory

    class Shared(PatientProtocol):
        pass

    factory = WebSocketServerFactory()
    factory.setProtocolOptions(maxFramePayloadSize=123)
    Shared.share_options(factory)
    assert Shared.CONFIG_ATTRS == ["perMessageCompressionAccept"]
    assert vars(Shared)["maxFramePayloadSize"] == 123


@pytest.mark.parametrize(("sockets", "pause_ms"), [(1, 1_000), (150, 3_000), (5_000, 4_000)])
def test_many_are_told_to_move_over_a_longer_time(sockets: int, pause_ms: int) -> None:
    frames: list[str] = []
    outbox = SimpleNamespace(put=frames.append)
    poller = SimpleNamespace(count=sockets, each=lambda act: act(SimpleNamespace(outbox=outbox)))
    _announce(cast(Process, SimpleNamespace(poller=poller)))
    assert json.loads(frames[0])["metadata"]["reconnect_after_ms"] == pause_ms


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
